"""Certificates that no authority of the system has signed."""

import asyncio
from pathlib import Path


async def self_signed(folder: Path, host: str = "localhost") -> tuple[Path, Path]:
    """Make a certificate for `host` that is its own authority; gives its file and that of its key."""
    certificate, key = folder / f"{host}.pem", folder / f"{host}.key"
    process = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={host}"),
        *("-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    return certificate, key
