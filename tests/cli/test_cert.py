"""cacheflow cert: a CA, and certificates that nodes and clients take."""

from __future__ import annotations

import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.certificates import met

from cacheflow.cli import signing
from cacheflow.cli.main import main
from cacheflow.net.tls.certificates import Certificates
from cacheflow.net.tls.trust import trusting


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_ca_and_a_node_s_certificate_are_two_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca = tmp_path / "ca"
    assert main(["cert", "ca", "--ca-dir", str(ca)]) == 0
    assert main(["cert", "node", "--ca-dir", str(ca), "--host", "db1.example", "--host", "10.0.0.7"]) == 0
    said = capsys.readouterr().out.splitlines()
    flags = said[-1].split()
    assert flags[::2] == ["--tls-cert", "--tls-key", "--tls-ca"]
    cert, key, authority = map(Path, flags[1::2])
    assert (mode(key), mode(ca / "ca.key"), mode(cert), mode(authority)) == (0o600, 0o600, 0o644, 0o644)
    certificates = Certificates(cert, key, authority)
    assert 364 < certificates.days_left <= 365
    for host in ("db1.example", "10.0.0.7"):
        met(trusting(authority), certificates.in_force.clients, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        met(trusting(authority), certificates.in_force.clients, "db2.example")


def test_a_renewed_certificate_takes_the_place_of_the_old(tmp_path: Path) -> None:
    ca = ["--ca-dir", str(tmp_path)]
    assert main(["cert", "ca", *ca]) == 0
    made = ["cert", "node", *ca, "--host", "::1", "--name", "n", "--out", str(tmp_path / "n")]
    assert main([*made, "--days", "10"]) == 0
    certificates = Certificates(tmp_path / "n/n.crt", tmp_path / "n/n.key", tmp_path / "ca.crt")
    assert main([*made, "--days", "20"]) == 0
    certificates.reload()
    assert certificates.days_left > 19
    assert sorted(path.name for path in (tmp_path / "n").iterdir()) == ["n.crt", "n.key"]


def test_a_certificate_ends_with_its_ca_and_one_that_has_ended_signs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["cert", "node", "--ca-dir", str(tmp_path), "--host", "n"]
    assert main(["cert", "ca", "--ca-dir", str(tmp_path), "--days", "30"]) == 0
    assert main(made) == 0
    # Its end is what is warned of, and what the metric tells.
    assert 29 < Certificates(tmp_path / "n.crt", tmp_path / "n.key", tmp_path / "ca.crt").days_left <= 30
    signing.make_ca(tmp_path / "old", "old", 0)
    assert main([*made, "--ca-dir", str(tmp_path / "old")]) == 2
    assert "ca.crt: has ended on" in capsys.readouterr().err


def test_a_ca_is_not_made_anew_over_the_old_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cert", "ca", "--ca-dir", str(tmp_path)]) == 0
    before = (tmp_path / "ca.key").read_bytes()
    assert main(["cert", "ca", "--ca-dir", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "ca.key").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "x"], "cacheflow cert ca"),
        ([], "--host"),
        (["--host", "é"], "is no host"),
        (["--host", "x", "--name", "../x"], "the name of a file"),
        (["--host", "x" * 65], "cannot stand in a certificate"),
        (["--host", "x", "--days", "0"], "--days"),
    ],
)
def test_what_cannot_be_made_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    folder = tmp_path / "ca"
    if said != "cacheflow cert ca":
        assert main(["cert", "ca", "--ca-dir", str(folder)]) == 0
    assert main(["cert", "node", "--ca-dir", str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_without_cryptography_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        f"from cacheflow.cli.main import main; sys.exit(main(['cert', 'ca', '--ca-dir', {str(tmp_path / 'ca')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "pip install 'cacheflow[tls]'" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "ca").exists()
