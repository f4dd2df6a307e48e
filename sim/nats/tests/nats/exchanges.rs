//! Odd things that clients may say to a server.

use crate::exchange::Exchange;

/// How a modern client introduces itself.
const HELLO: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"headers\":true,\"no_responders\":true}\n";

/// To a server that takes everybody.
pub(crate) fn open() -> Vec<Exchange> {
    let after_hello = [words(), subscriptions(), messages(), subjects(), answers()];
    let mut all: Vec<_> = after_hello
        .concat()
        .into_iter()
        .map(|text| Exchange::new().says(0, &format!("{HELLO}{text}")))
        .collect();
    all.extend(introductions().into_iter().map(|text| Exchange::new().says(0, text)));
    all.extend(bytes());
    all.extend(pieces());
    all.extend(pairs());
    all.extend(limits());
    all
}

/// To a server that wants to know who is there: the user `u` with the password `p`, or the token `t`.
pub(crate) fn guarded() -> Vec<Exchange> {
    [
        "PING\n",
        "PUB a 1\nx\n",
        "nonsense\n",
        "COX\n",
        "CONNECT {x\n",
        "CONNECT {}\n",
        "connect {\"user\":\"u\",\"pass\":\"p\"}\n",
        "CONNECT {\"user\":\"u\",\"pass\":\"p\",\"verbose\":false}\nSUB a 1\nPUB a 1\nx\n",
        "CONNECT {\"user\":\"u\",\"pass\":\"q\"}\n",
        "CONNECT {\"user\":\"U\",\"pass\":\"p\"}\n",
        "CONNECT {\"user\":\"u\"}\n",
        "CONNECT {\"auth_token\":\"t\",\"protocol\":1}\n",
        "CONNECT {\"auth_token\":\"T\"}\n",
        "CONNECT {\"user\":\"u\",\"pass\":\"p\",\"auth_token\":\"t\"}\n",
        "CONNECT {\"user\":\"t\"}\n",
        "CONNECT {\"user\":\"u\",\"pass\":\"p\"}\nCONNECT {\"pass\":\"q\"}\n",
        "CONNECT {\"user\":\"u\",\"pass\":\"p\"}\nCONNECT {\"verbose\":false}\nSUB a 1\n",
        "CONNECT {\"user\":\"u\",\"pass\":\"p\",\"account\":\"a\"}\n",
    ]
    .map(|text| Exchange::new().says(0, text))
    .into()
}

fn introductions() -> Vec<&'static str> {
    vec![
        "PING\n",
        "SUB i.a 1\nPUB i.a 2\nhi\nPUB i..a 0\n\n",
        "HPUB i.b 12 12\nNATS/1.0\n\n\n",
        "CONNECT {}\n",
        "CONNECT{}\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT {bad}\n",
        "CONNECT []\n",
        "CONNECT null\n",
        "CONNECT {} x\n",
        "CONNECT   {\"verbose\":false}  \n",
        "CONNECT {\"verbose\":\"yes\"}\n",
        "CONNECT {\"verbose\":null,\"echo\":null,\"other\":[1]}\n",
        "CONNECT {\"VERBOSE\":false}\n",
        "CONNECT {\"name\":1}\n",
        "CONNECT {\"name\":\"\u{e9}\",\"lang\":\"rust\",\"version\":\"1\"}\n",
        "CONNECT {\"protocol\":0}\n",
        "CONNECT {\"protocol\":1}\nPING\nPING\n",
        "PING\nCONNECT {\"protocol\":1}\nPING\n",
        "CONNECT {\"protocol\":2}\n",
        "CONNECT {\"protocol\":-1}\n",
        "CONNECT {\"protocol\":1.5}\n",
        "CONNECT {\"no_responders\":true}\n",
        "CONNECT {\"no_responders\":true,\"headers\":true}\n",
        "CONNECT {\"account\":\"x\"}\n",
        "CONNECT {\"new_account\":true}\n",
        "CONNECT {\"user\":\"x\",\"pass\":\"y\",\"verbose\":false}\n",
        "connect {\"verbose\":false}\nsub i.c 1\npub i.c 1\na\nunsub 1\nping\n",
        "CONNECT {\"verbose\":false}\nSUB i.d 1\nPUB i.d 1\na\nCONNECT {\"verbose\":true}\nPUB i.d 1\nb\n",
        "CONNECT {\"verbose\":false}\nSUB i.e 1\nCONNECT {}\nSUB i.e 1\nPUB i.e 1\na\n",
        "CONNECT {\"pedantic\":true}\nSUB i.f.> 1\nPUB i.f.* 1\na\nPUB i.f.> 1\na\nPUB i.f.. 1\na\nPUB i.f.ok 1\na\n",
        "CONNECT {\"pedantic\":true,\"verbose\":false}\nSUB i.>.a 1\nSUB i..b 2\n",
        "CONNECT {\"verbose\":true}\nSUB i.>.b 1\nSUB i.g 2\nSUB i.g 2\nUNSUB 2\nUNSUB 2\nPONG\n",
        "CONNECT {\"verbose\":true}\nSUB i.h 1\nUNSUB 1 1\nPUB i.h 1\na\nPUB i.h 1\nb\n",
        "CONNECT {\"verbose\":true,\"headers\":true}\nSUB i.i 1\nHPUB i.i 12 13\nNATS/1.0\n\nx\n",
        "CONNECT {\"verbose\":false}\nHPUB i.j 12 12\nNATS/1.0\n\n\n",
        "CONNECT {\"verbose\":false,\"echo\":false}\nSUB i.k 1\nPUB i.k 1\na\n",
        "CONNECT {\"pedantic\":false}\nSUB i.l 1\nPUB i.l _R_.x 1\na\nPUB i.l $GR.x 1\na\nPUB $GR.y 1\na\n",
        "CONNECT {\"verbose\":false,\"headers\":true}\nSUB i.m 7\nPUB i.nobody i.m 1\na\n",
    ]
}

/// First words.
fn words() -> Vec<&'static str> {
    vec![
        "ping\nPiNg\n",
        "PING with words\n",
        "PINGx\n",
        "PONG\n",
        "pong x\n",
        "\n",
        " PING\n",
        "HELLO\n",
        "GET / HTTP/1.1\n\n",
        "MSG a 1 1\na\n",
        "HMSG a 1 1 1\na\n",
        "+OK\n",
        "+ok x\n",
        "+\n",
        "-ERR 'x'\n",
        "-ERR\n",
        "INFO {}\n",
        "INFO x\n",
        "RS+ a\n",
        "LS+ a\n",
        "A+ a\n",
        "PUB\n",
        "PUB \n",
        "HPUB\n",
        "SUB\n",
        "SUB \n",
        "UNSUB\n",
        "UNSUB \n",
        "SUBx a 1\n",
        "PUBa 1\n",
        "\u{16}\u{3}\u{1}\u{2}",
        "\0",
    ]
}

fn subscriptions() -> Vec<&'static str> {
    vec![
        "SUB b.a 1\nPUB b.a 5\nhello\n",
        "SUB\t b.b  \t 1 \nPUB \t b.b\t5 \nhello\n",
        "SUB b.c q 1\nPUB b.c 5\nhello\n",
        "SUB b.d\n",
        "SUB b.d q 1 2\n",
        "SUB b.e 1\nSUB b.f 1\nPUB b.e 1\na\nPUB b.f 1\nb\n",
        "SUB b.g sid-x.y\nPUB b.g 1\na\n",
        "SUB b.h q.* 1\nPUB b.h 1\nx\nUNSUB 1\nSUB b.h > 2\nPUB b.h 1\ny\n",
        "SUB b.i _sys_ 1\nSUB b.i 1\nPUB b.i 1\nx\n",
        "SUB b.j .. 1\nPUB b.j 1\nx\n",
        "SUB b.k 1\nPUB b.k 1\na\nUNSUB 1\nPUB b.k 1\nb\n",
        "UNSUB 99\n",
        "UNSUB 1 2 3\n",
        "SUB b.l 1\nUNSUB 1 2\nPUB b.l 1\na\nPUB b.l 1\nb\nPUB b.l 1\nc\n",
        "SUB b.m 1\nPUB b.m 1\na\nPUB b.m 1\nb\nUNSUB 1 2\nPUB b.m 1\nc\n",
        "SUB b.n 1\nPUB b.n 1\na\nPUB b.n 1\nb\nUNSUB 1 3\nPUB b.n 1\nc\nPUB b.n 1\nd\n",
        "SUB b.o 1\nUNSUB 1 0\nPUB b.o 1\na\n",
        "SUB b.p 1\nUNSUB 1 -1\nPUB b.p 1\na\n",
        "SUB b.q 1\nUNSUB 1 x\nPUB b.q 1\na\n",
        "SUB b.r 1\nUNSUB 1 10000000000\nPUB b.r 1\na\n",
        "SUB b.s 1\nUNSUB 1 999999999\nPUB b.s 1\na\n",
        "SUB b.t 1\nUNSUB 1 1\nUNSUB 1 2\nPUB b.t 1\na\nPUB b.t 1\nb\nPUB b.t 1\nc\n",
        "SUB b.u 1\nUNSUB 1 2\nUNSUB 1 1\nPUB b.u 1\na\nPUB b.u 1\nb\n",
        "SUB b.v q 1\nUNSUB 1 1\nPUB b.v 1\na\nPUB b.v 1\nb\nSUB b.v 1\nPUB b.v 1\nc\n",
    ]
}

fn messages() -> Vec<&'static str> {
    vec![
        "PUB c.a\n",
        "PUB c.a b c 1\nx\n",
        "PUB c.a x\n",
        "PUB c.a -1\n",
        "PUB c.a 0x1\nx\n",
        "PUB c.a 0000000001\nx\n",
        "SUB c.b 1\nPUB c.b 00000001\nx\n",
        "SUB c.c 1\nPUB c.c 0\n\nPUB c.c 2\n\n\n",
        "SUB c.d 1\nPUB c.d back 1\nx\n",
        "PUB c.e 10\nhi\nPING\nPING\n",
        "PUB c.e 1\nhello\n",
        "PUB c.e 1048577\n",
        "PUB c.e 999999999\n",
        "HPUB c.e 12 1048577\n",
        "SUB c.f 1\nHPUB c.f 20 25\nNATS/1.0\nA: bcd\n\nhello\n",
        "SUB c.g 1\nHPUB c.g back 12 12\nNATS/1.0\n\n\n",
        "SUB c.h 1\nHPUB c.h 0 5\nhello\n",
        "SUB c.i 1\nHPUB c.i 5 5\nhello\n",
        "SUB c.j 1\nHPUB c.j 0012 00013\nNATS/1.0\n\nx\n",
        "HPUB c.k 6 5\nhello\n",
        "HPUB c.k 5\nhello\n",
        "HPUB c.k a b 5 5\nhello\n",
        "HPUB c.k x 5\nhello\n",
        "HPUB c.k 5 x\nhello\n",
        "SUB c.l 1\nPUB c.l _R_.x 1\na\nPUB c.l _R_ 1\nb\nPUB _R_.a 1\nc\n",
        "SUB c.m 1\nPUB c.m $JS.ACK.x 1\na\nPUB c.m $JS.ACK. 1\nb\nPUB $JS.ACK.x 1\nc\n",
        "SUB > 1\nPUB _GR_.a 1\na\nPUB _GR_. 1\nb\nPUB c.n _GR_.a.b 1\nd\nPUB $NRG.a 1\nf\nPUB $NRG 1\ng\n",
        "PUB c.\"o _R_.\" 1\nx\nPUB c.o _R_.\\ 1\nx\n",
    ]
}

fn subjects() -> Vec<&'static str> {
    vec![
        "SUB a.>.b 1\nSUB a..b 2\nSUB .a 3\nSUB a. 4\nSUB . 5\nSUB >> 6\nSUB a.** 7\nSUB >.a 8\n",
        "SUB d.a.* 1\nSUB d.a.b 2\nPUB d.a.* 1\nx\n",
        "SUB d.b.> 1\nPUB d.b.> 1\nx\nPUB > 1\ny\nPUB * 1\nz\n",
        "SUB d.c.> 1\nPUB d.c. 1\na\nPUB d.c..b 1\na\nPUB .d.c 1\na\nPUB . 0\n\nPUB d.c.a 1\nz\n",
        "SUB d.d.*.* 1\nPUB d.d..b 1\na\nPUB d.d.a. 1\nb\n",
        "SUB d.e.a* 1\nSUB d.e.*a 2\nPUB d.e.ab 1\nx\nPUB d.e.a* 1\na\nPUB d.e.*a 1\nb\nPUB d.e.ba 1\nc\n",
        "SUB d.f.>a 1\nSUB d.f.a> 2\nPUB d.f.a 1\nx\nPUB d.f.>a 1\na\nPUB d.f.a> 1\nb\nPUB d.f.> 1\nc\n",
        "SUB d.g.*.c 1\nPUB d.g.b.c 1\na\nPUB d.g.c 1\nb\nPUB d.g.a.b.c 1\nc\nPUB D.g.b.c 1\nd\n",
        "SUB d.h.> 1\nPUB d.h 1\na\nPUB d.h.a 1\nb\nPUB d.h.a.b 1\nc\n",
        "SUB $SYS.x 1\nPUB $SYS.x 1\na\nSUB $foo 2\nPUB $foo 1\nb\nSUB _INBOX.x 3\nPUB _INBOX.x 1\nc\n",
        "SUB d.i.a|b/c:d#e@f$ 1\nPUB d.i.a|b/c:d#e@f$ 1\na\n",
        "SUB d.j.\u{7f}\0 1\nPUB d.j.\u{7f}\0 1\na\n",
        "SUB d.\u{e9}\u{a0}x.* 1\nPUB d.\u{e9}\u{a0}x.\u{2028} 1\na\nPUB d.e\u{301}\u{a0}x.a 1\nb\n",
        "SUB d.k\u{c}k 1\nPUB d.k\u{c}k 1\na\nSUB d.\u{c} 2\nPUB d.\u{c} 1\nb\nSUB \u{b} 3\nPUB \u{b} 1\nc\n",
    ]
}

/// That nobody was there.
fn answers() -> Vec<&'static str> {
    vec![
        "SUB e.a 1\nPUB e.nobody e.a 1\nx\n",
        "SUB e.b.* 7\nPUB e.nobody e.b.x 1\nx\n",
        "SUB e.c q 7\nPUB e.nobody e.c 1\nx\n",
        "SUB e.d 7\nPUB e.d e.d 1\nx\n",
        "SUB e.e 7\nUNSUB 7 1\nPUB e.nobody e.e 1\nx\nPUB e.nobody e.e 1\nx\nPUB e.e 1\ny\nPUB e.e 1\nz\n",
        "SUB e.f 7\nHPUB e.nobody e.f 12 13\nNATS/1.0\n\nx\n",
        "SUB e.g.> 7\nPUB e.nobody e.g..x 1\nx\nPUB e.nobody e.g.* 1\nx\n",
        "SUB e.h 7\nPUB e..nobody e.h 1\nx\nPUB .e e.h 1\nx\n",
        "SUB e.i 7\nPUB e.nobody e.j 1\nx\n",
        "SUB e.k 7\nSUB e.l q 8\nUNSUB 8\nPUB e.l e.k 1\nx\n",
        "CONNECT {\"echo\":false}\nSUB e.m 7\nSUB e.n 8\nPUB e.m e.n 1\nx\n",
        "CONNECT {\"no_responders\":false}\nSUB e.o 7\nPUB e.nobody e.o 1\nx\n",
    ]
}

/// Line ends of all kinds, and bytes that are no text.
fn bytes() -> Vec<Exchange> {
    let all: [&[u8]; 15] = [
        b"SUB f.a 1\nPUB f.a 5\nhello\r\n",
        b"PUB f.b 5\nhello\nPING\r\n",
        b"PUB f.b 5\r\nhello\rPING\r\n",
        b"PUB f.b 5\r\nhellPING\r\n",
        b"SUB f.c\r 1\r\nPUB f.c 1\r\na\r\n",
        b"SUB f.d 1\r2\r\nPUB f.d 1\r\na\r\n",
        b"SUB f.e 1\r\nPUB f.e\r 12\n1\r\n",
        b"SUB f.\xff\xfe.\x00\x7f 1\r\nPUB f.\xff\xfe.\x00\x7f 1\r\na\r\n",
        b"SUB f.\xff\xfd.* 1\r\nPUB f.\xff\xfd.\x80 1\r\na\r\n",
        b"SUB f.f \xff\r\nPUB f.f 1\r\n\xff\r\n",
        b"SUB f.g \xff\xff 1\r\nPUB f.g \xfe 1\r\n\x00\r\n",
        b"PUB \nf.h 1\r\nx\r\n",
        b"SUB \rf.j 1\nPUB f.j 1\r\na\r\n",
        b"SUB \nf.i 1\r\nPUB f.i 1\r\nx\r\n",
        b"\xff\xfe\r\n",
    ];
    let hello = HELLO.replace('\n', "\r\n");
    all.map(|bytes| Exchange::new().sends(0, [hello.as_bytes(), bytes].concat())).into()
}

/// What arrives in pieces.
fn pieces() -> Vec<Exchange> {
    let begun = |text: &str| Exchange::new().begins(0, format!("{HELLO}{text}").replace('\n', "\r\n"));
    vec![
        begun("PI").begins(0, "NG").begins(0, " \r").sends(0, "\n"),
        begun("SUB g.a")
            .begins(0, " 1")
            .begins(0, "\r\nPUB g.a 1")
            .begins(0, "0\r\n01234")
            .sends(0, "56789\r\n"),
        begun("SUB g.b 1\nPUB g.b 1")
            .begins(0, "\r")
            .begins(0, "\n")
            .begins(0, "x")
            .begins(0, "\r")
            .sends(0, "\n"),
        begun("SUB g.c 1\nPUB g.c 0\n").sends(0, "\r\n"),
        begun("PUB g.d 10\nhi\n").says(0, "more\nPING\n"),
        begun("PUB g.d 1\n").says(0, "hello\n"),
        begun("SUB g.e 1\nHPUB g.e 12 1").begins(0, "4\r\nNATS/1.0\r\n\r").begins(0, "\nhi").sends(0, "\r\n"),
        begun("X"),
        begun("").says(0, "BAD\n").says(0, ""),
    ]
}

/// Two clients.
fn pairs() -> Vec<Exchange> {
    let plain = "CONNECT {\"verbose\":false}\n";
    let silent = "CONNECT {\"verbose\":false,\"echo\":false,\"headers\":true,\"no_responders\":true}\n";
    let pair = |one: &str, other: &str| Exchange::new().says(0, one).says(1, other);
    let hello = |text: &str| format!("{HELLO}{text}");
    let ten = |text: &str| text.repeat(10);
    vec![
        pair(&hello("SUB h.a 1\n"), &hello("SUB h.a 1\nPUB h.a 1\nx\n")),
        pair(&hello("SUB h.b 7\n"), &hello("PUB h.nobody h.b 1\nx\n")),
        pair(&format!("{plain}SUB h.c 1\n"), &hello("HPUB h.c 20 25\nNATS/1.0\nA: bcd\n\nhello\n")),
        pair(&format!("{plain}SUB h.d 1\n"), &hello("HPUB h.d r 20 20\nNATS/1.0\nA: bcd\n\n\n")),
        pair(&hello("SUB h.e 1\n"), &format!("{plain}PUB h.e 1\nx\n")),
        pair(&hello("SUB h.f 1\nUNSUB 1 1\n"), &hello("PUB h.f 1\nx\nPUB h.f 1\ny\n")),
        pair(&hello("SUB h.g q 1\n"), &format!("{silent}SUB h.g q 1\n{}", ten("PUB h.g 1\nx\n"))),
        pair(&hello("SUB h.h q 1\n"), &format!("{silent}SUB h.j 2\nSUB h.i 3\nPUB h.j h.i 1\nx\n")),
        // Whose connection is gone is not subscribed any more.
        pair(&hello("SUB h.k 1\nBAD\n"), &hello("SUB h.l 2\nPUB h.k h.l 1\nx\n")),
        pair(&hello("SUB h.m 1\n"), &hello("PUB h.m 1\na\nPUB h.m 3\nabcBAD\n")),
        pair(&hello("SUB h.n 1\n"), &hello("PUB h.n 1\na\nPUB h.n 1\nb\n"))
            .says(0, "UNSUB 1\n")
            .says(1, "PUB h.n 1\nc\n"),
    ]
}

/// Lines and messages that are long.
fn limits() -> Vec<Exchange> {
    let dots = |token: &str, tokens: usize| vec![token; tokens].join(".");
    let texts = [
        format!("PUB {} 1\na\n", "k".repeat(4094)),
        format!("PUB {} 1\na\n", "k".repeat(4095)),
        format!("PUB {} 1\na\n", "k".repeat(5000)),
        format!("SUB {} 1\n", "k".repeat(5000)),
        format!("SUB {}", "k".repeat(5000)),
        format!("CONNECT {{\"name\":\"{}\"}}\n", "k".repeat(5000)),
        format!("PING {}\n", "k".repeat(9000)),
        format!("-ERR {}\n", "k".repeat(9000)),
        format!("SUB {0} 1\nPUB {0} 1\na\n", "k".repeat(4090)),
        format!("SUB {0} 1\nPUB {0} 1\na\nPUB {0}.k 1\nb\n", dots("k", 1000)),
        format!("SUB {0} 1\nPUB {0} 1\na\n", dots("kk", 60)),
        format!("SUB {0}.> 1\nPUB {0} 1\na\nPUB {0}.k 1\nb\nPUB {0}.k.k 1\nc\n", dots("kk", 60)),
        format!("SUB {0}.* 1\nPUB {0} 1\na\nPUB {0}.k 1\nb\nPUB {0}.k.k 1\nc\n", dots("kk", 59)),
        format!("SUB kkk.> 1\nPUB kkk.{} 1\na\n", dots("k", 1000)),
        format!("SUB k.m 1\nPUB k.m 1048576\n{}\n", "x".repeat(1_048_576)),
        format!("SUB k.n 1\nHPUB k.n 12 1048576\nNATS/1.0\n\n{}\n", "x".repeat(1_048_564)),
    ];
    texts.map(|text| Exchange::new().says(0, &format!("{HELLO}{text}"))).into()
}
