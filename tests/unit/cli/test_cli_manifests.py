"""Updates described in YAML and by flags, lint, diff, verification by roles, and programs that sign."""

import json
import sys

import pytest

MAIN = b"firmware-version: 2.1.0\n" + bytes(1000)
PLAN = """
vendor: acme.example
class: meter-v2
sequence: 8
manufacturer: Acme
model: M2
text: {en: Better clocks, de: Bessere Uhren}
use_before: 2100-01-01T00:00:00Z
minimum_battery: 500
authorize: 0
sever: [text]
components:
  - {image: main.bin, requires: ">= 1.5, < 3.0"}
  - {id: "01", image: modem.bin, version: 5.1.0, integrated: true}
"""


@pytest.fixture(autouse=True)
def _files(lwm2m, tmp_path) -> None:
    (tmp_path / "main.bin").write_bytes(MAIN)
    (tmp_path / "modem.bin").write_bytes(b"modem" * 20)
    (tmp_path / "update.yaml").write_text(PLAN)
    for name in ("author", "operator"):
        assert lwm2m("keys", "new", f"{name}.pem").exit_code == 0


def shown(lwm2m, *arguments: str) -> dict:
    result = lwm2m("manifest", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_yaml_file_describes_components_conditions_and_texts(lwm2m) -> None:
    made = shown(lwm2m, "create", "--from", "update.yaml")
    assert [(part["component"], part["version"]) for part in made["components"]] == [
        ("00", "2.1.0"),
        ("01", "5.1.0"),
    ]
    assert (made["use_before"], made["downgrade"], made["severed"]) == (4102444800, False, ["text"])
    assert made["text"]["de"]["update_description"] == "Bessere Uhren"
    assert [part["size"] for part in made["payloads"].values()] == [100]
    asked = [step["condition"] for step in made["sequences"]["install"] if "condition" in step]
    assert asked[:4] == ["minimum-battery", "update-authorized", "version", "version"]


def test_flags_say_the_same_and_go_before_the_file(lwm2m) -> None:
    flags = ["main.bin", "--vendor", "acme.example", "--class", "meter-v2", "--sequence", "8", "--manufacturer", "Acme",
             "--model", "M2", "--text", "en=Better clocks", "--text", "de=Bessere Uhren", "--use-before",
             "2100-01-01T00:00:00Z", "--minimum-battery", "500", "--authorize", "0", "--sever", "text",
             "--requires", ">= 1.5, < 3.0", "--with", "01=modem.bin@5.1.0"]  # fmt: skip
    from_file = shown(lwm2m, "create", "--from", "update.yaml", "--class", "other")
    from_flags = shown(lwm2m, "create", *flags)
    assert from_file["text"]["en"]["components"]["00"]["model_info"] == "other"
    assert from_flags["use_before"] == from_file["use_before"]
    assert from_flags["components"][1]["digests"] == from_file["components"][1]["digests"]
    assert not from_flags["payloads"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("sequence: 8", "sequence: soon"), "sequence"),
        (("sequence: 8", "sequence: 8\nsequence: 9"), "from"),
        (("sequence: 8", "sequenz: 8"), "plan"),
        (("minimum_battery: 500", "minimum_battery: -1"), "minimum_battery"),
        (("sever: [text]", "sever: [validate]"), "sever"),
        (("sever: [text]", "sever: text"), "sever"),
        (('">= 1.5, < 3.0"', "newer"), "requires"),
        (('id: "01"', 'id: "0z"'), "components/1"),
        (('id: "01"', "id: 01"), "components/1/id"),
        (("version: 5.1.0", "version: 5.1"), "components/1/version"),
        (("image: modem.bin", "image: gone.bin"), "components/1/image"),
        (("integrated: true", "integrated: 1"), "components/1/integrated"),
        (("2100-01-01T00:00:00Z", "later"), "use_before"),
        (("{en: Better clocks, de: Bessere Uhren}", "[a]"), "text"),
        (("components:", "parts:"), "plan"),
        (("sequence: 8", "sequence: 8\ninstall: perhaps"), "install"),
        (("vendor: acme.example", "vendor: [:"), "from"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_its_field(lwm2m, tmp_path, change, field) -> None:
    assert change[0] in PLAN
    (tmp_path / "update.yaml").write_text(PLAN.replace(*change))
    result = lwm2m("manifest", "create", "--from", "update.yaml")
    assert (result.exit_code, field in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "update.yaml.suit").exists()


def test_lint_tells_what_a_device_of_some_versions_would_do(lwm2m) -> None:
    shown(lwm2m, "create", "--from", "update.yaml")
    device = [
        "lint",
        "update.yaml.suit",
        "--vendor",
        "acme.example",
        "--class",
        "meter-v2",
        "--battery",
        "500",
    ]
    takes = shown(lwm2m, *device, "--component", "00=1.9.0", "--component", "01=5.0.0")
    assert (takes["accepted"], takes["invoked"], len(takes["fetched"])) == (True, True, 2)
    assert {step["outcome"] for step in takes["steps"]} == {"ok"}
    for flags, code in (
        (["--component", "00=1.0.0", "--component", "01=5.0.0"], "precursor-mismatch"),
        (["--component", "00=1.9.0"], "component-mismatch"),
        (["--component", "00=2.2.0", "--component", "01=5.0.0"], "version-rollback"),
        (["--component", "00=1.9.0", "--component", "01=5.0.0", "--refuses"], "not-authorized"),
        (["--component", "00=1.9.0", "--component", "01=5.0.0", "--sequence", "9"], "sequence-rollback"),
        (["--component", "00=1.9.0", "--component", "01=5.0.0", "--slot-size", "00=100"], "storage-full"),
        (["--component", "00=1.9.0", "--component", "01=5.0.0", "--no-clock"], "expired"),
    ):
        assert shown(lwm2m, *device, *flags)["code"] == code
    assert "the device refuses it: class-mismatch" in lwm2m("manifest", *device, "--class", "pump").stderr
    unsigned = lwm2m("manifest", *device, "-k", "author.pem.pub")
    assert unsigned.exit_code == 7


def test_diff_names_what_differs(lwm2m) -> None:
    shown(lwm2m, "create", "--from", "update.yaml")
    shown(lwm2m, "create", "--from", "update.yaml", "--sequence", "9", "-o", "next.suit")
    result = lwm2m("manifest", "diff", "update.yaml.suit", "next.suit", "--json")
    assert {entry["where"] for entry in json.loads(result.stdout)} == {"sequence_number", "digest"}
    assert lwm2m("manifest", "diff", "next.suit", "next.suit").stderr == "no difference\n"


def test_a_downgrade_takes_the_operators_signature(lwm2m) -> None:
    shown(lwm2m, "create", "--from", "update.yaml", "--downgrade")
    shown(lwm2m, "sign", "update.yaml.suit", "-k", "author.pem")
    verify = [
        "manifest",
        "verify",
        "update.yaml.suit",
        "-k",
        "author.pem.pub",
        "--approval-key",
        "operator.pem.pub",
    ]
    assert (lwm2m(*verify).exit_code, "no operator has approved" in lwm2m(*verify).stderr) == (7, True)
    shown(lwm2m, "sign", "update.yaml.suit", "-k", "operator.pem")
    done = json.loads(lwm2m(*verify, "--image", "main.bin", "--image", "modem.bin", "--json").stdout)
    assert done["approved_by"]
    assert len(done["signers"]) == 2


def test_a_second_signature_can_be_demanded(lwm2m, monkeypatch) -> None:
    monkeypatch.setenv("LWM2M_KEY_PASSPHRASE", "correct horse")
    assert lwm2m("keys", "new", "pq.pem", "--algorithm", "ml-dsa-44", "--passphrase").exit_code == 0
    shown(lwm2m, "create", "--from", "update.yaml")
    shown(lwm2m, "sign", "update.yaml.suit", "-k", "author.pem")
    verify = ["manifest", "verify", "update.yaml.suit", "-k", "author.pem.pub", "-k", "pq.pem.pub",
              "--requires", "ml-dsa-44"]  # fmt: skip
    assert lwm2m(*verify).exit_code == 7
    shown(lwm2m, "sign", "update.yaml.suit", "-k", "pq.pem")
    assert lwm2m(*verify).exit_code == 0


def test_passphrases_come_from_files_too_and_can_be_changed(lwm2m, tmp_path) -> None:
    (tmp_path / "old").write_text("one\n")
    (tmp_path / "new").write_text("two")
    assert lwm2m("keys", "new", "k.pem", "--passphrase-file", "old").exit_code == 0
    assert (
        lwm2m(
            "keys", "encrypt", "k.pem", "k2.pem", "--old-passphrase-file", "old", "--passphrase-file", "new"
        ).exit_code
        == 0
    )
    shown(lwm2m, "create", "--from", "update.yaml")
    assert (
        lwm2m("manifest", "sign", "update.yaml.suit", "-k", "k2.pem", "--passphrase-file", "old").exit_code
        == 2
    )
    shown(lwm2m, "sign", "update.yaml.suit", "-k", "k2.pem", "--passphrase-file", "new")
    public = lwm2m("keys", "public", "k2.pem", "-o", "k2.pub", "--passphrase-file", "new", "--json")
    assert json.loads(public.stdout)["algorithm"] == "esp256"
    assert (tmp_path / "k2.pub").read_bytes() == (tmp_path / "k.pem.pub").read_bytes()


SIGNER = """
import os, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
assert os.environ["LWM2M_SIGN_ALGORITHM"] == "esp256"
sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read(), ec.ECDSA(hashes.SHA256())))
"""


def test_a_program_signs_for_the_key_that_it_holds(lwm2m, tmp_path) -> None:
    (tmp_path / "signer.py").write_text(SIGNER)
    shown(lwm2m, "create", "--from", "update.yaml")
    command = f"{sys.executable} signer.py"
    sign = ["manifest", "sign", "update.yaml.suit", "--public-key", "author.pem.pub", "--sign-with"]
    before = (tmp_path / "update.yaml.suit").read_bytes()
    for wrong, code in (
        (f"{command} operator.pem", 7),
        (f"{command} gone.pem", 2),
        ("echo no", 2),
        ("./gone", 2),
        ("'", 2),
    ):
        result = lwm2m(*sign, wrong)
        assert result.exit_code == code, result.stderr
    assert (tmp_path / "update.yaml.suit").read_bytes() == before
    assert lwm2m(*sign, f"{command} author.pem").exit_code == 0
    assert lwm2m("manifest", "verify", "update.yaml.suit", "-k", "author.pem.pub").exit_code == 0
    for alone in (["--sign-with", command], [], ["--sign-with", command, "-k", "author.pem"]):
        assert lwm2m("manifest", "sign", "update.yaml.suit", *alone).exit_code == 2


def test_best_effort_goes_on_where_all_or_nothing_ends(lwm2m, tmp_path) -> None:
    device = ("--vendor", "acme.example", "--class", "meter-v2", "--component", "00=2.0", "--battery", "500")
    (tmp_path / "soft.yaml").write_text(PLAN.replace("sequence: 8", "sequence: 8\ninstall: best-effort"))
    for plan, accepted in (("update.yaml", False), ("soft.yaml", True)):
        assert lwm2m("manifest", "create", "--from", plan).exit_code == 0
        played = lwm2m(
            "manifest", "lint", f"{plan}.suit", *device, "--component", "01=4.0", "--fails", "01", "--json"
        )
        assert json.loads(played.stdout)["accepted"] is accepted
    assert lwm2m("manifest", "create", "--from", "update.yaml", "--install", "best-effort").exit_code == 0
    assert (tmp_path / "update.yaml.suit").read_bytes() == (tmp_path / "soft.yaml.suit").read_bytes()
