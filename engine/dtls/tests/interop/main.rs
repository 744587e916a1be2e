//! Other implementations on the loop-back interface: OpenSSL, `GnuTLS` and libcoap, with the example `peer` as our end.
//!
//! A peer whose program is not installed is left out with a line that says so.

#[path = "../common/mod.rs"]
mod common;
mod resumed;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::pki::{Authority, Issued, raw_key};

const KEY_HEX: &str = "30313233343536373839616263646566";
const PATIENCE: Duration = Duration::from_secs(20);

/// Where cargo puts examples that it builds for the tests.
fn our_peer() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("target directory");
    target.join("examples").join("peer")
}

fn is_installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    if !found {
        println!("left out: {program} is not installed");
    }
    found
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.local_addr().expect("bound").port()
}

/// A program with its lines as they come; it ends with the test.
struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("piped"));
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("piped"));
        for stream in [out, err] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("piped");
        input.write_all(line.as_bytes()).expect("it listens");
        input.flush().expect("it listens");
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            let found = line.contains(text);
            self.seen.push(line);
            if found {
                return;
            }
        }
        panic!("no line with {text:?} in {:#?}", self.seen);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Our server with these options, and its port.
fn serve(options: &[&str]) -> (Running, u16) {
    let port = free_port();
    let mut command = Command::new(our_peer());
    command
        .arg("serve")
        .arg(format!("127.0.0.1:{port}"))
        .args(options);
    let mut running = Running::start(&mut command);
    running.expect("listening");
    (running, port)
}

/// Our client against a port, until it has an answer.
#[track_caller]
fn call(port: u16, text: &str, options: &[&str], answer: &str) {
    let mut command = Command::new(our_peer());
    command
        .arg("call")
        .arg(format!("127.0.0.1:{port}"))
        .arg(text)
        .args(options);
    Running::start(&mut command).expect(answer);
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Certificates as files: DER for us, PEM for the others.
struct Files {
    directory: PathBuf,
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for at in 0..4 {
            let digit = DIGITS[word >> (18 - 6 * at) & 63];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

impl Files {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("dtls-interop-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let files = Self { directory };
        let authority = Authority::new("Interop CA");
        files.put("ca", "CERTIFICATE", &authority.der);
        files.put_issued("server", &authority.server("localhost"));
        files.put_issued("client", &authority.client("dev1"));
        files.put("rpk", "PRIVATE KEY", &raw_key());
        files.put("other-rpk", "PRIVATE KEY", &raw_key());
        files
    }

    fn put_issued(&self, name: &str, issued: &Issued) {
        self.put(name, "CERTIFICATE", &issued.der);
        self.put(&format!("{name}-key"), "PRIVATE KEY", &issued.pkcs8);
    }

    fn put(&self, name: &str, label: &str, der: &[u8]) {
        let text = base64(der);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        let pem = format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        );
        fs::write(self.directory.join(format!("{name}.pem")), pem).expect("written");
        fs::write(self.directory.join(format!("{name}.der")), der).expect("written");
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    /// Our options for one side's certificate.
    fn ours(&self, side: &str) -> Vec<String> {
        [
            "cert",
            &self.path(&format!("{side}.der")),
            &self.path(&format!("{side}-key.der")),
            "ca",
            &self.path("ca.der"),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

const PSK: [&str; 3] = ["psk", "dev1", KEY_HEX];

#[test]
fn openssl_client_with_psk() {
    if !is_installed("openssl") {
        return;
    }
    for suite in ["PSK-AES128-CCM8", "PSK-AES128-CCM", "PSK-AES128-GCM-SHA256"] {
        let all = "TLS_PSK_WITH_AES_128_CCM_8,TLS_PSK_WITH_AES_128_CCM,TLS_PSK_WITH_AES_128_GCM_SHA256";
        let (mut ours, port) = serve(&[&PSK[..], &["suites", all]].concat());
        let mut theirs = Running::start(
            Command::new("openssl")
                .args(words("s_client -dtls1_2 -psk_identity dev1 -psk"))
                .args([KEY_HEX, "-cipher", &format!("{suite}@SECLEVEL=0"), "-connect"])
                .arg(format!("127.0.0.1:{port}")),
        );
        theirs.say("hello there\n");
        ours.expect("Established");
        theirs.expect("hello there");
    }
}

#[test]
fn openssl_server_with_psk() {
    if !is_installed("openssl") {
        return;
    }
    let port = free_port();
    let mut theirs = Running::start(
        Command::new("openssl")
            .args(words(
                "s_server -dtls1_2 -listen -psk_identity dev1 -psk_hint h -nocert -cipher",
            ))
            .args(["PSK-AES128-CCM8@SECLEVEL=0", "-psk", KEY_HEX, "-accept"])
            .arg(port.to_string()),
    );
    theirs.expect("ACCEPT");
    let mut command = Command::new(our_peer());
    command.args(["call", &format!("127.0.0.1:{port}"), "hello from us"]);
    let mut ours = Running::start(command.args(PSK));
    ours.expect("Established");
    theirs.expect("hello from us");
    theirs.say("and back\n");
    ours.expect("received and back");
}

#[test]
fn openssl_client_with_certificates_in_small_datagrams() {
    if !is_installed("openssl") {
        return;
    }
    let files = Files::new("openssl-client");
    for cipher in ["ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA-AES128-GCM-SHA256"] {
        let options = files.ours("server");
        let (mut ours, port) = serve(&[&strs(&options)[..], &["mtu", "300"]].concat());
        let mut theirs = Running::start(
            Command::new("openssl")
                .args(words("s_client -dtls1_2 -mtu 256 -cert"))
                .args([&files.path("client.pem"), "-key", &files.path("client-key.pem")])
                .args(["-CAfile", &files.path("ca.pem"), "-verify_return_error"])
                .args(["-cipher", &format!("{cipher}@SECLEVEL=0"), "-connect"])
                .arg(format!("127.0.0.1:{port}")),
        );
        theirs.say("hello there\n");
        ours.expect("dev1");
        theirs.expect("hello there");
    }
}

#[test]
fn openssl_server_with_certificates() {
    if !is_installed("openssl") {
        return;
    }
    let files = Files::new("openssl-server");
    let port = free_port();
    let mut theirs = Running::start(
        Command::new("openssl")
            .args(words(
                "s_server -dtls1_2 -listen -Verify 1 -verify_return_error -cert",
            ))
            .args([&files.path("server.pem"), "-key", &files.path("server-key.pem")])
            .args(["-CAfile", &files.path("ca.pem")])
            .args(["-cipher", "ECDHE-ECDSA-AES128-CCM8@SECLEVEL=0", "-accept"])
            .arg(port.to_string()),
    );
    theirs.expect("ACCEPT");
    let options = files.ours("client");
    let mut command = Command::new(our_peer());
    command.args([
        "call",
        &format!("127.0.0.1:{port}"),
        "hello from us",
        "name",
        "localhost",
    ]);
    let mut ours = Running::start(command.args(options));
    ours.expect("Established");
    theirs.expect("hello from us");
    theirs.say("and back\n");
    ours.expect("received and back");
}

const CBC: &str = "TLS_PSK_WITH_AES_128_CBC_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256";

/// With encrypt-then-MAC and without.
#[test]
fn openssl_client_with_cbc() {
    if !is_installed("openssl") {
        return;
    }
    let files = Files::new("openssl-cbc");
    let certificates = files.ours("server");
    let with_certificates = [
        "-cert",
        &files.path("client.pem"),
        "-key",
        &files.path("client-key.pem"),
    ];
    let with_psk = ["-psk_identity", "dev1", "-psk", KEY_HEX];
    for (ours, theirs, cipher) in [
        (&PSK[..], &with_psk[..], "PSK-AES128-CBC-SHA256"),
        (
            &strs(&certificates)[..],
            &with_certificates[..],
            "ECDHE-ECDSA-AES128-SHA256",
        ),
    ] {
        for order in ["", "-no_etm"] {
            let (mut ours, port) = serve(&[ours, &["suites", CBC]].concat());
            let mut theirs = Running::start(
                Command::new("openssl")
                    .args(words("s_client -dtls1_2"))
                    .args(theirs)
                    .args(words(order))
                    .args(["-cipher", cipher, "-connect", &format!("127.0.0.1:{port}")]),
            );
            theirs.say("hello there\n");
            ours.expect("Established");
            theirs.expect("hello there");
        }
    }
}

#[test]
fn openssl_server_with_cbc() {
    if !is_installed("openssl") {
        return;
    }
    for order in ["", "-no_etm"] {
        let port = free_port();
        let mut theirs = Running::start(
            Command::new("openssl")
                .args(words(
                    "s_server -dtls1_2 -listen -psk_identity dev1 -psk_hint h -nocert -cipher",
                ))
                .args([
                    "PSK-AES128-CBC-SHA256",
                    "-psk",
                    KEY_HEX,
                    "-accept",
                    &port.to_string(),
                ])
                .args(words(order)),
        );
        theirs.expect("ACCEPT");
        let mut command = Command::new(our_peer());
        command.args([
            "call",
            &format!("127.0.0.1:{port}"),
            "hello from us",
            "suites",
            CBC,
        ]);
        let mut ours = Running::start(command.args(PSK));
        theirs.expect("hello from us");
        theirs.say("and back\n");
        ours.expect("received and back");
    }
}

#[test]
fn gnutls_client_with_cbc() {
    if !is_installed("gnutls-cli") {
        return;
    }
    for order in ["", ":%NO_ETM"] {
        let (mut ours, port) = serve(&[&PSK[..], &["suites", CBC]].concat());
        let mut theirs = Running::start(
            Command::new("gnutls-cli")
                .args(["--udp", "--pskusername", "dev1", "--pskkey", KEY_HEX, "--priority"])
                .arg(format!(
                    "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+PSK:-CIPHER-ALL:+AES-128-CBC:-MAC-ALL:+SHA256{order}"
                ))
                .args(["-p", &port.to_string(), "127.0.0.1"]),
        );
        theirs.expect("Handshake was completed");
        theirs.say("hello there\n");
        ours.expect("Established");
        theirs.expect("hello there");
    }
}

const GNUTLS_PSK: &str =
    "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+PSK:-CIPHER-ALL:+AES-128-CCM-8:+AES-128-GCM";
const GNUTLS_ECDSA: &str = "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-CIPHER-ALL:+AES-128-CCM-8";

#[test]
fn gnutls_client_with_psk() {
    if !is_installed("gnutls-cli") {
        return;
    }
    let (mut ours, port) = serve(&PSK);
    let mut theirs = Running::start(
        Command::new("gnutls-cli")
            .args([
                "--udp",
                "--pskusername",
                "dev1",
                "--pskkey",
                KEY_HEX,
                "--priority",
                GNUTLS_PSK,
                "-p",
            ])
            .args([&port.to_string(), "127.0.0.1"]),
    );
    theirs.expect("Handshake was completed");
    theirs.say("hello there\n");
    ours.expect("Established");
    theirs.expect("hello there");
}

#[test]
fn gnutls_server_with_psk() {
    if !is_installed("gnutls-serv") {
        return;
    }
    let files = Files::new("gnutls-server-psk");
    fs::write(files.path("psk.txt"), format!("dev1:{KEY_HEX}\n")).expect("written");
    let port = free_port();
    let mut theirs = Running::start(
        Command::new("gnutls-serv")
            .args([
                "--udp",
                "--echo",
                "--pskpasswd",
                &files.path("psk.txt"),
                "--priority",
                GNUTLS_PSK,
                "-p",
            ])
            .arg(port.to_string()),
    );
    theirs.expect("listening on");
    call(port, "hello from us", &PSK, "received hello from us");
}

#[test]
fn gnutls_client_with_certificates_and_raw_public_keys() {
    if !is_installed("gnutls-cli") {
        return;
    }
    let files = Files::new("gnutls-client");
    let options = files.ours("server");
    let (mut ours, port) = serve(&strs(&options));
    let mut theirs = Running::start(
        Command::new("gnutls-cli")
            .args(["--udp", "--x509cafile", &files.path("ca.pem")])
            .args([
                "--x509certfile",
                &files.path("client.pem"),
                "--x509keyfile",
                &files.path("client-key.pem"),
            ])
            .args(["--verify-hostname", "localhost", "--priority", GNUTLS_ECDSA, "-p"])
            .args([&port.to_string(), "127.0.0.1"]),
    );
    theirs.expect("Handshake was completed");
    theirs.say("hello there\n");
    ours.expect("dev1");
    theirs.expect("hello there");

    let (mut ours, port) = serve(&["rpk", &files.path("rpk.der")]);
    fs::write(files.path("raw-public.pem"), public_pem(&files, "other-rpk")).expect("written");
    let mut theirs = Running::start(
        Command::new("gnutls-cli")
            .args([
                "--udp",
                "--no-ca-verification",
                "--rawpkfile",
                &files.path("raw-public.pem"),
            ])
            .args(["--rawpkkeyfile", &files.path("other-rpk.pem"), "--priority"])
            .args([&format!("{GNUTLS_ECDSA}:-CTYPE-ALL:+CTYPE-RAWPK"), "-p"])
            .args([&port.to_string(), "127.0.0.1"]),
    );
    theirs.expect("Handshake was completed");
    theirs.say("hello there\n");
    ours.expect("RawPublicKey");
    theirs.expect("hello there");
}

/// The public half of a key as PEM.
fn public_pem(files: &Files, name: &str) -> String {
    let der = fs::read(files.path(&format!("{name}.der"))).expect("there");
    let key = dtls::SigningKey::from_pkcs8(&der).expect("a key");
    let text = base64(key.public_key());
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn libcoap_clients_with_psk() {
    for program in ["coap-client-openssl", "coap-client-gnutls"] {
        if !is_installed(program) {
            continue;
        }
        let (mut ours, port) = serve(&[&PSK[..], &["coap"]].concat());
        let mut theirs = Running::start(
            Command::new(program)
                .args(["-B", "8", "-u", "dev1", "-k", "0123456789abcdef"])
                .arg(format!("coaps://127.0.0.1:{port}/some-path")),
        );
        ours.expect("Established");
        theirs.expect("some-path");
    }
}

#[test]
fn libcoap_servers_with_psk() {
    for program in ["coap-server-openssl", "coap-server-gnutls"] {
        if !is_installed(program) {
            continue;
        }
        // coaps is on the port above.
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["-A", "127.0.0.1", "-k", "0123456789abcdef", "-h", "hint", "-p"]);
        let _theirs = Running::start(command.arg(port.to_string()));
        call(port + 1, "time", &[&PSK[..], &["coap"]].concat(), "received ");
    }
}
