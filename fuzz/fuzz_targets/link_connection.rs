#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slipring_fuzz::link_connection(data));
