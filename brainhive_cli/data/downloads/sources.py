"""Hosts, terms and manual steps for the download of each data set."""

from dataclasses import dataclass
from pathlib import Path

from brainhive_cli.core.files import documents
from brainhive_cli.data.downloads.hosts import RemoteFile


@dataclass(frozen=True)
class Source:
    """Hosts and terms of a data set.

    Attributes:
        hosts: References of hosts with equal files, for `hosts.list_files`. If a host
            fails, the next is tried.
        further_hosts: References of further files of the same folder.
        web_files: Files of a web server.
        terms: Address of the licence or agreement, or the licence itself.
        steps: Manual steps in order, with `{root}` for the local folder and
            `{subjects}` for the requested subjects.
        other_sources: Description of other sources.
        member_prefixes: Start of the names in archives that are unpacked into a folder
            with the archive's name.
        subjects: All subjects, if `steps` name them.
        size_and_licence: Description for use without a network, or "".
        model_licence: Licence that the hub lists, under which models of the recordings
            may be shared, or "" if no source permits it.
    """

    hosts: tuple[str, ...] = ()
    further_hosts: tuple[str, ...] = ()
    web_files: tuple[RemoteFile, ...] = ()
    terms: str = "its host's"
    steps: tuple[str, ...] = ()
    other_sources: str = ""
    member_prefixes: tuple[str, ...] = ()
    subjects: tuple[int, ...] = ()
    size_and_licence: str = ""
    model_licence: str = ""

    @property
    def summary(self) -> str:
        """Size, licence and terms in a sentence."""
        terms = f"terms: {self.terms}"
        return f"{self.size_and_licence}; {terms}" if self.size_and_licence else terms


SOURCES = documents.read(Path(__file__).with_name("sources.yaml"), dict[str, Source])
"""Sources by kind of the data set."""
