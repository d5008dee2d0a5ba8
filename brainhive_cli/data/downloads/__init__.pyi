from .downloads import (
    download_files as download_files,
    find_missing_files as find_missing_files,
    find_outdated_files as find_outdated_files,
)
from .hosts import (
    DESCRIPTION_FILE as DESCRIPTION_FILE,
    LISTERS as LISTERS,
    NOTES_FILE as NOTES_FILE,
    RemoteFile as RemoteFile,
    choose_files as choose_files,
    list_files as list_files,
    read_licence as read_licence,
)
from .sources import SOURCES as SOURCES, Source as Source
