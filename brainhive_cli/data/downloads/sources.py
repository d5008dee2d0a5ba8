"""Sources of each data set: its hosts, its terms, and what people do themselves."""

from dataclasses import dataclass
from pathlib import Path

from brainhive_cli.core import documents
from brainhive_cli.data.downloads.hosts import RemoteFile


@dataclass(frozen=True)
class Source:
    """Sources of a data set.

    Attributes:
        hosts: References of hosts that have the same files, as `hosts.list_files` takes
            them; the next one is asked where one fails.
        further: References of further files of the same folder.
        web: Files of a web server.
        terms: Where its licence, or agreement, stands.
        steps: What people do themselves, in order; `{root}` is the folder of the data
            set, `{subjects}` those whose recordings they want.
        elsewhere: Where else it is, or more of it.
        tops: How files at the top of an archive of the first folder begin, if they
            belong into a folder of the archive's name.
        subjects: All subjects, where steps name them.
        known: Size and licence, as far as they are known without a network.
        model_licence: Licence, by the hub's list, that brain models of its recordings
            may have; empty where nothing that was read here says that such models may
            be shared.
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
        """Size and licence as far as they are known without a network, and where the
        terms stand.
        """
        return "; ".join(filter(None, [self.size_and_licence, f"terms: {self.terms}"]))


SOURCES = documents.read(Path(__file__).with_name("sources.yaml"), dict[str, Source])
"""By the kind of the data set."""
