"""The members of a zip file, with their checksums where whoever wrote it has computed them."""

from zipfile import ZipFile, ZipInfo


def members(archive: ZipFile) -> list[ZipInfo]:
    """List the members; one whose CRC32 is 0, as some tools and torch may write it, is read without."""
    found = archive.infolist()
    for member in found:
        member.CRC = member.CRC or None  # type: ignore[assignment]  # which zipfile then does not compare
    return found
