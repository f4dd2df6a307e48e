//! Chromium without a window.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A page in a file of its own.
pub(crate) struct Page {
    directory: PathBuf,
}

/// The size of the window, in pixels.
pub(crate) const SIZE: (usize, usize) = (1600, 1000);

impl Page {
    pub(crate) fn new(html: &str) -> Self {
        let name = std::thread::current().name().unwrap().replace(':', "_");
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("picture_{name}"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("page.html"), html).unwrap();
        Self { directory }
    }

    /// The document at a place in the page, once its scripts have run.
    pub(crate) fn dom(&self, place: &str) -> String {
        self.run(place, &["--dump-dom"])
    }

    /// What is seen of it.
    pub(crate) fn screenshot(&self, place: &str, arguments: &[&str]) -> Shot {
        let file = self.directory.join("page.png");
        drop(fs::remove_file(&file));
        let to_file = format!("--screenshot={}", file.display());
        self.run(place, &[arguments, &[&to_file]].concat());
        Shot::read(&file)
    }

    fn run(&self, place: &str, arguments: &[&str]) -> String {
        let output = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--force-device-scale-factor=1",
            ])
            .arg(format!("--window-size={},{}", SIZE.0, SIZE.1))
            .arg(format!("--user-data-dir={}", self.directory.join("profile").display()))
            .args(arguments)
            .arg(format!("file://{}{place}", self.directory.join("page.html").display()))
            .output()
            .expect("chromium is there: ./test install, or apt-get install chromium");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The value of the first attribute of this name.
pub(crate) fn attribute<'a>(dom: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = dom.split_once(&format!(" {name}=\""))?;
    Some(value.split_once('"')?.0)
}

/// A picture of a page.
pub(crate) struct Shot {
    pixels: Vec<u8>,
    channels: usize,
}

impl Shot {
    fn read(file: &Path) -> Self {
        let file = BufReader::new(fs::File::open(file).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width as usize, info.height as usize), SIZE);
        Self { pixels, channels: info.color_type.samples() }
    }

    /// The colour at a place.
    pub(crate) fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * SIZE.0 + x) * self.channels;
        self.pixels[at..at + 3].try_into().unwrap()
    }

    /// How many pixels of a column have this colour.
    pub(crate) fn count(&self, x: usize, colour: [u8; 3]) -> usize {
        (0..SIZE.1).filter(|y| self.pixel(x, *y) == colour).count()
    }
}
