//! Sessions that other implementations resume with us, and we with them.

use super::*;

#[test]
fn openssl_client_resumes_with_psk_and_certificates() {
    if !is_installed("openssl") {
        return;
    }
    let files = Files::new("openssl-resume");
    let certificates = files.ours("server");
    let with_certificates = [
        "-cert",
        &files.path("client.pem"),
        "-key",
        &files.path("client-key.pem"),
        "-CAfile",
        &files.path("ca.pem"),
    ];
    let with_psk = ["-psk_identity", "dev1", "-psk", KEY_HEX];
    for (ours, theirs, cipher) in [
        (&PSK[..], &with_psk[..], "PSK-AES128-CCM8@SECLEVEL=0"),
        (
            &strs(&certificates)[..],
            &with_certificates[..],
            "ECDHE-ECDSA-AES128-CCM8@SECLEVEL=0",
        ),
    ] {
        let (mut ours, port) = serve(ours);
        let session = files.path("session.pem");
        for (option, says, resumed) in [
            ("-sess_out", "New, ", "resumed 0"),
            ("-sess_in", "Reused, ", "resumed 1"),
        ] {
            let mut theirs = Running::start(
                Command::new("openssl")
                    .args(words("s_client -dtls1_2"))
                    .args(theirs)
                    .args([option, &session, "-cipher", cipher, "-connect"])
                    .arg(format!("127.0.0.1:{port}")),
            );
            theirs.expect(says);
            theirs.say("hello there\n");
            ours.expect(resumed);
            theirs.expect("hello there");
        }
    }
}

#[test]
fn our_client_resumes_with_an_openssl_server() {
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
    command.args(["call", &format!("127.0.0.1:{port}"), "hello from us", "again"]);
    let mut ours = Running::start(command.args(PSK));
    for _ in 0..2 {
        theirs.expect("hello from us");
        theirs.say("and back\n");
        ours.expect("received and back");
    }
    let reused = theirs
        .seen
        .iter()
        .filter(|line| line.contains("Reused session-id"));
    assert_eq!(reused.count(), 1);
}

#[test]
fn gnutls_client_resumes_with_psk_and_certificates() {
    if !is_installed("gnutls-cli") {
        return;
    }
    let files = Files::new("gnutls-resume");
    let certificates = files.ours("server");
    let with_certificates = [
        "--x509cafile",
        &files.path("ca.pem"),
        "--x509certfile",
        &files.path("client.pem"),
        "--x509keyfile",
        &files.path("client-key.pem"),
        "--verify-hostname",
        "localhost",
        "--priority",
        GNUTLS_ECDSA,
    ];
    let with_psk = [
        "--pskusername",
        "dev1",
        "--pskkey",
        KEY_HEX,
        "--priority",
        GNUTLS_PSK,
    ];
    for (ours, theirs) in [
        (&PSK[..], &with_psk[..]),
        (&strs(&certificates)[..], &with_certificates[..]),
    ] {
        let (mut ours, port) = serve(ours);
        let mut theirs = Running::start(
            Command::new("gnutls-cli")
                .args(["--udp", "--resume"])
                .args(theirs)
                .args(["-p", &port.to_string(), "127.0.0.1"]),
        );
        theirs.expect("This is a resumed session");
        theirs.say("hello there\n");
        ours.expect("resumed 1");
        theirs.expect("hello there");
    }
}

#[test]
fn our_client_resumes_with_a_gnutls_server() {
    if !is_installed("gnutls-serv") {
        return;
    }
    let files = Files::new("gnutls-server-resume");
    fs::write(files.path("psk.txt"), format!("dev1:{KEY_HEX}\n")).expect("written");
    let port = free_port();
    let mut theirs = Running::start(
        Command::new("gnutls-serv")
            .args([
                "--udp",
                "--echo",
                "-d",
                "2",
                "--priority",
                GNUTLS_PSK,
                "--pskpasswd",
            ])
            .args([&files.path("psk.txt"), "-p", &port.to_string()]),
    );
    theirs.expect("listening on");
    let mut command = Command::new(our_peer());
    command.args(["call", &format!("127.0.0.1:{port}"), "hello", "again"]);
    let mut ours = Running::start(command.args(PSK));
    for _ in 0..2 {
        ours.expect("received hello");
        theirs.expect("command: hello");
    }
    // It looks for a suite in a full handshake only.
    let full = theirs
        .seen
        .iter()
        .filter(|line| line.contains("for compatibility"));
    assert_eq!(full.count(), 1, "{:#?}", theirs.seen);
}
