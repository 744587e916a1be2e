"""OpenSSL as the peer of handshakes: a server in this process, datagrams handed over in memory, no sockets.

Only the time inside the server's calls is counted, so it is OpenSSL's share without the kernel's: ours beside it
includes sockets, events and the look-up of the key. Ciphers and curves are those of ours; certificates (self-signed)
stand in for raw public keys, which OpenSSL 3.0 does not have.
"""

import ctypes
import ctypes.util
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.scenarios import Measurement

_KEY = b"0123456789abcdef"
_SUITES = {True: b"PSK-AES128-CCM8:@SECLEVEL=0", False: b"ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"}
_ROUNDS = 40  # calls of one handshake, at most
_MTU = 1400
_PEM = 1
_CTRL_OPTIONS_MTU = 17  # SSL_CTRL_SET_MTU
_NO_QUERY_MTU = 1 << 12
_COOKIE_EXCHANGE = 1 << 13
_NO_TICKET = 1 << 14
_VERIFY = 1 | 2  # SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT

_pointer = ctypes.c_void_p
_bytes_out = ctypes.POINTER(ctypes.c_ubyte)
_PskServer = ctypes.CFUNCTYPE(ctypes.c_uint, _pointer, ctypes.c_char_p, _bytes_out, ctypes.c_uint)
_PskClient = ctypes.CFUNCTYPE(
    ctypes.c_uint, _pointer, ctypes.c_char_p, _bytes_out, ctypes.c_uint, _bytes_out, ctypes.c_uint
)
_Verify = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _pointer)
_MakeCookie = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _bytes_out, ctypes.POINTER(ctypes.c_uint))
_CheckCookie = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _bytes_out, ctypes.c_uint)


@_PskServer
def _psk_server(_ssl: int, _identity: bytes, out: "ctypes._Pointer[ctypes.c_ubyte]", _limit: int) -> int:
    ctypes.memmove(out, _KEY, len(_KEY))
    return len(_KEY)


@_PskClient
def _psk_client(
    _ssl: int,
    _hint: bytes,
    identity: "ctypes._Pointer[ctypes.c_ubyte]",
    _identity_limit: int,
    out: "ctypes._Pointer[ctypes.c_ubyte]",
    _limit: int,
) -> int:
    ctypes.memmove(identity, b"device\0", 7)
    ctypes.memmove(out, _KEY, len(_KEY))
    return len(_KEY)


@_Verify
def _verify(_ok: int, _store: int) -> int:
    return 1


@_MakeCookie
def _make_cookie(
    _ssl: int, out: "ctypes._Pointer[ctypes.c_ubyte]", length: "ctypes._Pointer[ctypes.c_uint]"
) -> int:
    ctypes.memmove(out, _KEY, len(_KEY))
    length[0] = len(_KEY)
    return 1


@_CheckCookie
def _check_cookie(_ssl: int, _cookie: object, _length: int) -> int:
    return 1


class _Library:
    """The functions of libssl and libcrypto that are needed."""

    def __init__(self, ssl: str, crypto: str) -> None:
        self.ssl, self.crypto = ctypes.CDLL(ssl), ctypes.CDLL(crypto)
        for library, names in (
            (self.ssl, ("DTLS_server_method", "DTLS_client_method", "SSL_CTX_new", "SSL_new")),
            (self.crypto, ("BIO_new", "BIO_s_mem")),
        ):
            for name in names:
                getattr(library, name).restype = _pointer
        self.crypto.OpenSSL_version.restype = ctypes.c_char_p
        self.ssl.SSL_CTX_set_options.argtypes = (_pointer, ctypes.c_uint64)

    @property
    def version(self) -> str:
        """Name and version, such as OpenSSL 3.0.19."""
        text: bytes = self.crypto.OpenSSL_version(0)
        return " ".join(text.decode().split()[:2])

    def context(self, *, server: bool, psk: bool, folder: Path) -> _pointer:
        """Return settings of one side."""
        method = self.ssl.DTLS_server_method() if server else self.ssl.DTLS_client_method()
        context = _pointer(self.ssl.SSL_CTX_new(_pointer(method)))
        if self.ssl.SSL_CTX_set_cipher_list(context, _SUITES[psk]) != 1:
            raise RuntimeError("OpenSSL lacks the suite")
        self.ssl.SSL_CTX_set_options(
            context, _NO_QUERY_MTU | _NO_TICKET | (_COOKIE_EXCHANGE if server else 0)
        )
        if server:
            self.ssl.SSL_CTX_set_cookie_generate_cb(context, _make_cookie)
            self.ssl.SSL_CTX_set_cookie_verify_cb(context, _check_cookie)
        if psk:
            callback = _psk_server if server else _psk_client
            setter = (
                self.ssl.SSL_CTX_set_psk_server_callback
                if server
                else self.ssl.SSL_CTX_set_psk_client_callback
            )
            setter(context, callback)
            return context
        name = str(folder / ("server" if server else "client")).encode()
        done = self.ssl.SSL_CTX_use_certificate_file(context, name + b".pem", _PEM)
        done &= self.ssl.SSL_CTX_use_PrivateKey_file(context, name + b".key", _PEM)
        if done != 1:
            raise RuntimeError("OpenSSL does not take the certificate")
        self.ssl.SSL_CTX_set_verify(context, _VERIFY, _verify)
        return context


class _End:
    """One side of a handshake, with what it receives and what it sends in memory."""

    def __init__(self, library: _Library, context: _pointer, *, server: bool) -> None:
        self._library = library
        self._session = _pointer(library.ssl.SSL_new(context))
        memory = _pointer(library.crypto.BIO_s_mem())
        self.inward = _pointer(library.crypto.BIO_new(memory))
        self.outward = _pointer(library.crypto.BIO_new(memory))
        library.ssl.SSL_set_bio(self._session, self.inward, self.outward)
        library.ssl.SSL_ctrl(self._session, _CTRL_OPTIONS_MTU, ctypes.c_long(_MTU), None)
        (library.ssl.SSL_set_accept_state if server else library.ssl.SSL_set_connect_state)(self._session)

    def step(self) -> bool:
        """Go on as far as it gets; True at the end of the handshake."""
        done: int = self._library.ssl.SSL_do_handshake(self._session)
        return done == 1

    def free(self) -> None:
        """Give everything back."""
        self._library.ssl.SSL_free(self._session)


class _Loop:
    """Handshakes between two contexts."""

    def __init__(self, library: _Library, *, psk: bool, folder: Path) -> None:
        self._library = library
        self._server = library.context(server=True, psk=psk, folder=folder)
        self._client = library.context(server=False, psk=psk, folder=folder)
        self._buffer = ctypes.create_string_buffer(16384)

    def shake(self) -> float:
        """Do one; return the CPU seconds of the server's side."""
        client = _End(self._library, self._client, server=False)
        spent = 0.0
        begin = time.thread_time()
        server = _End(self._library, self._server, server=True)
        spent += time.thread_time() - begin
        done = False
        for _ in range(_ROUNDS):
            is_client_done = client.step()
            if is_client_done and done:
                break
            self._hand_over(client, server)
            begin = time.thread_time()
            done = server.step()
            spent += time.thread_time() - begin
            self._hand_over(server, client)
        else:
            raise RuntimeError("OpenSSL's two ends did not agree")
        begin = time.thread_time()
        server.free()
        spent += time.thread_time() - begin
        client.free()
        return spent

    def _hand_over(self, of: _End, to: _End) -> None:
        crypto = self._library.crypto
        while (count := crypto.BIO_read(of.outward, self._buffer, len(self._buffer))) > 0:
            crypto.BIO_write(to.inward, self._buffer, count)


def _certificates(folder: Path) -> None:
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2049, 12, 31, tzinfo=UTC))
            .sign(key, SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(secret)


def handshakes(psk_work: str, mutual_work: str, count: int) -> list[Measurement]:
    """Measure both kinds. Raises RuntimeError when OpenSSL is missing."""
    ssl, crypto = ctypes.util.find_library("ssl"), ctypes.util.find_library("crypto")
    if ssl is None or crypto is None:
        raise RuntimeError("OpenSSL's libraries are not installed")
    library = _Library(ssl, crypto)
    with tempfile.TemporaryDirectory() as folder:
        _certificates(Path(folder))
        return [
            _measure(work, library, _Loop(library, psk=psk, folder=Path(folder)).shake, number)
            for work, psk, number in ((psk_work, True, count), (mutual_work, False, max(count // 4, 20)))
        ]


def _measure(work: str, library: _Library, shake: Callable[[], float], count: int) -> Measurement:
    for _ in range(count // 10):
        shake()
    begin = time.perf_counter()
    times = sorted(shake() for _ in range(count))
    seconds = time.perf_counter() - begin
    return Measurement(
        work=work,
        who=library.version,
        count=count,
        cpu_us=sum(times) / count * 1e6,
        per_second=count / seconds,
        p50_us=0.0,
        p99_us=0.0,
        max_us=0.0,
        errors=0,
        note="in memory, without sockets",
    )
