"""The main job under every fault that the field has: each ends in the right state, with the right reason.

Real processes over loopback; the link's losses come from a seed, which a failing test names.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import LossyLink, ReferenceDevice, Server, Signer, image_of
from harness.server import FAST

IMAGE_SIZE = 200 * 1024
BLOCKS = IMAGE_SIZE // 1024
REPEATED_AFTER_A_BREAK = 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        yield running


@pytest.fixture
def signer() -> Signer:
    return Signer()


def reference(tmp_path: Path, signer: Signer, uri: str, *options: str, **identity: str) -> ReferenceDevice:
    trust = signer.public_file(tmp_path)
    return ReferenceDevice(tmp_path, "dev-1", uri, trust=trust, options=options, **identity)


def outcome(server: Server, campaign: str) -> tuple[str, str]:
    server.wait_campaign(campaign)
    deployment = server.deployment(campaign, "dev-1")
    return deployment["state"], deployment["reason"]


def blocks_served(server: Server) -> int:
    metrics = server.try_call("GET", f"{server.url}/metrics").text
    line = next(line for line in metrics.splitlines() if "blocks_served" in line and not line.startswith("#"))
    return int(float(line.split()[-1]))


def progress(server: Server, campaign: str, share: float) -> bool:
    """Whether the device has this share of the image."""
    deployment = server.deployment(campaign, "dev-1")
    return bool(deployment["size"]) and deployment["offset"] >= deployment["size"] * share


@pytest.mark.parametrize(
    ("options", "reason"),
    [((), "confirmed-digest"), (("--plain", "--delivery", "push"), "confirmed-version")],
    ids=["manifest-and-pull", "image-by-push"],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_quarter_of_all_packets_lost(
    tmp_path: Path, signer: Signer, options: tuple[str, ...], reason: str, seed: int
) -> None:
    small = image_of("2.0.0", 40 * 1024)
    settings = FAST.replace("ack_timeout = 0.3", "ack_timeout = 0.1")
    with (
        Server(tmp_path, settings=settings) as server,
        LossyLink(server.port, seed=seed, loss=0.25, duplicate=0.1, reorder=0.1) as link,
        reference(tmp_path, signer, link.uri, "--ack-timeout", "0.1", *options),
    ):
        server.wait_registered("dev-1")
        campaign = server.campaign("lossy", signer.publish(server, signer.release("2.0.0", small)))
        assert outcome(server, campaign) == ("succeeded", reason), f"seed {seed}"
        assert link.lost > 20


def test_the_server_is_killed_in_the_middle_of_a_download(
    tmp_path: Path, server: Server, signer: Signer
) -> None:
    release = signer.release("2.0.0", image_of("2.0.0", IMAGE_SIZE))
    with (
        LossyLink(server.port, seed=1, loss=0.05) as link,
        reference(tmp_path, signer, link.uri, "--ack-timeout", "0.3"),
    ):
        server.wait_registered("dev-1")
        campaign = server.campaign("killed", signer.publish(server, release))
        server.wait_until(lambda: server.deployment(campaign, "dev-1")["state"] == "downloading")
        before = blocks_served(server)
        server.kill()
        server.start()
        assert outcome(server, campaign) == ("succeeded", "confirmed-digest")
        # the new process counts from zero
        assert before + blocks_served(server) <= BLOCKS + REPEATED_AFTER_A_BREAK


def test_the_device_loses_its_power_in_the_middle_of_a_download(
    tmp_path: Path, server: Server, signer: Signer
) -> None:
    release = signer.release("2.0.0", image_of("2.0.0", IMAGE_SIZE))
    device = reference(tmp_path, signer, server.uri)
    with device.start(options=("--die-at-percent", "50")):
        server.wait_registered("dev-1")
        campaign = server.campaign("power", signer.publish(server, release))
        assert device.process.wait() != 0
        device.start(options=())
        assert outcome(server, campaign) == ("succeeded", "confirmed-digest")
        assert blocks_served(server) <= BLOCKS + REPEATED_AFTER_A_BREAK
        assert server.deployment(campaign, "dev-1")["attempt"] == 1


@pytest.mark.protection("server", "changed-image", "changed-manifest")
@pytest.mark.parametrize("part", ["image", "manifest"])
def test_an_upload_with_one_wrong_bit_is_refused_and_nothing_stays(
    server: Server, signer: Signer, part: str
) -> None:
    good = signer.release("2.0.0", image_of("2.0.0", 5000))
    if part == "image":
        altered = type(good)(good.version, good.image[:-1] + bytes([good.image[-1] ^ 1]), good.envelope)
    else:
        middle = len(good.envelope) // 2
        flipped = bytes([good.envelope[middle] ^ 1])
        envelope = good.envelope[:middle] + flipped + good.envelope[middle + 1 :]
        altered = type(good)(good.version, good.image, envelope)
    with pytest.raises(AssertionError, match=r"4\d\d"):
        signer.publish(server, altered)
    assert server.call("GET", "/manifests")["items"] == []


@pytest.mark.protection("device", "changed-image")
def test_an_image_that_went_bad_in_the_store_is_refused_by_the_device(
    tmp_path: Path, server: Server, signer: Signer
) -> None:
    release = signer.release("2.0.0", image_of("2.0.0", 20_000))
    with reference(tmp_path, signer, server.uri):
        server.wait_registered("dev-1")
        manifest = signer.publish(server, release)
        file = next(
            path for path in (tmp_path / "data").rglob("*") if path.name.endswith(release.digest.hex())
        )
        file.chmod(0o600)
        with file.open("r+b") as stored:
            stored.seek(10_000)
            byte = stored.read(1)[0]
            stored.seek(10_000)
            stored.write(bytes([byte ^ 1]))
        campaign = server.campaign("rotten", manifest, retries=0)
        assert outcome(server, campaign) == ("failed", "digest-mismatch")
        assert server.call("GET", "/devices/dev-1")["firmware"]["version"] == "1.0.0"


@pytest.mark.protection("device", "foreign-class")
def test_a_manifest_for_another_class_is_refused_by_the_device(
    tmp_path: Path, server: Server, signer: Signer
) -> None:
    release = signer.release("2.0.0", image_of("2.0.0", 5000), class_name="M9")
    with reference(tmp_path, signer, server.uri):
        server.wait_registered("dev-1")
        campaign = server.campaign("foreign", signer.publish(server, release))
        assert outcome(server, campaign) == ("rejected", "class-mismatch")


@pytest.mark.protection("device", "unknown-signer")
def test_a_signature_that_the_device_does_not_trust_is_refused_by_it(
    tmp_path: Path, server: Server, signer: Signer
) -> None:
    other = Signer()
    release = other.release("2.0.0", image_of("2.0.0", 5000))
    with reference(tmp_path, signer, server.uri):
        server.wait_registered("dev-1")
        campaign = server.campaign("untrusted", other.publish(server, release))
        assert outcome(server, campaign) == ("rejected", "unknown-key")


def test_an_older_version_is_not_installed(tmp_path: Path, server: Server, signer: Signer) -> None:
    release = signer.release("0.9.0", image_of("0.9.0", 5000), sequence=9)
    with reference(tmp_path, signer, server.uri):
        server.wait_registered("dev-1")
        campaign = server.campaign("older", signer.publish(server, release))
        state, reason = outcome(server, campaign)
        assert (state, reason) in {("rejected", "version-rollback"), ("skipped", "version-rollback")}
        assert server.call("GET", "/devices/dev-1")["firmware"]["version"] == "1.0.0"


@pytest.mark.protection("device", "too-big")
def test_an_image_that_does_not_fit_is_refused_by_the_device(
    tmp_path: Path, server: Server, signer: Signer
) -> None:
    release = signer.release("2.0.0", image_of("2.0.0", IMAGE_SIZE))
    with reference(tmp_path, signer, server.uri, "--slot-size", str(64 * 1024)):
        server.wait_registered("dev-1")
        campaign = server.campaign("full", signer.publish(server, release), retries=0)
        state, reason = outcome(server, campaign)
        assert reason == "storage-full"
        assert state in {"failed", "rejected"}


def test_a_device_that_falls_silent_ends_as_failed(tmp_path: Path, signer: Signer) -> None:
    settings = FAST.replace("[update]", "[update]\ninstall_timeout = 3.0")
    release = signer.release("2.0.0", image_of("2.0.0", 5000))
    with (
        Server(tmp_path, settings=settings) as server,
        reference(tmp_path, signer, server.uri, "--silent"),
    ):
        server.wait_registered("dev-1")
        campaign = server.campaign("silent", signer.publish(server, release), retries=0)
        assert outcome(server, campaign) == ("failed", "silent")


@pytest.mark.protection("device", "trial")
@pytest.mark.protection("server", "trial")
def test_an_image_that_does_not_start_is_reverted_and_counted_as_failed(
    tmp_path: Path, server: Server, signer: Signer
) -> None:
    release = signer.release("2.0.0", image_of("2.0.0", 5000))
    with reference(tmp_path, signer, server.uri, "--bad-boot"):
        server.wait_registered("dev-1")
        campaign = server.campaign("bad", signer.publish(server, release), retries=0)
        state, _ = outcome(server, campaign)
        assert state == "failed"
        assert server.call("GET", "/devices/dev-1")["firmware"]["version"] == "1.0.0"
