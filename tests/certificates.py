"""Certificates that no authority of the system has signed."""

import asyncio
from pathlib import Path

SIGNING = """
[ca]
default_ca = own
[own]
database = {folder}/signed
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""


async def self_signed(folder: Path, host: str = "localhost") -> tuple[Path, Path]:
    """Make a certificate for `host` that is its own authority; gives its file and that of its key."""
    certificate, key = folder / f"{host}.pem", folder / f"{host}.key"
    await openssl("req", "-x509", "-days", "1", *_subject(host), "-keyout", str(key), "-out", str(certificate))
    return certificate, key


async def expired(folder: Path, host: str = "localhost") -> tuple[Path, Path]:
    """Make one that was valid for a day in 2020. The command that takes such a date wants its own files."""
    certificate, key, request = folder / f"{host}.pem", folder / f"{host}.key", folder / f"{host}.request"
    settings = folder / "signing"
    settings.write_text(SIGNING.format(folder=folder))
    (folder / "signed").touch()
    await openssl("req", "-new", *_subject(host), "-keyout", str(key), "-out", str(request))
    await openssl(
        *("ca", "-batch", "-selfsign", "-notext", "-config", str(settings), "-keyfile", str(key), "-in", str(request)),
        *("-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-out", str(certificate)),
    )
    return certificate, key


def _subject(host: str) -> tuple[str, ...]:
    return "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"


async def openssl(*arguments: str) -> None:
    """Run a command of it."""
    process = await asyncio.create_subprocess_exec("openssl", *arguments, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
