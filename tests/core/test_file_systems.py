"""File systems, of lines as Linux writes them into /proc/self/mountinfo."""

import os
from pathlib import Path

import pytest

from brainhive_cli.core.file_systems import MOUNTS, find_file_system

LINES = r"""
21 26 0:19 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
22 26 0:20 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
26 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw,errors=remount-ro
43 26 0:38 / /home rw,relatime shared:21 - nfs4 nas:/export/home rw,vers=4.2,hard,proto=tcp,local_lock=none,addr=10.0.0.2
44 26 0:39 / /nfs3 rw,relatime shared:22 - nfs nas:/old rw,vers=3,hard,nolock,proto=tcp,mountproto=tcp,local_lock=all,addr=10.0.0.2
45 26 0:40 / /nfs-flock rw,relatime shared:23 - nfs nas:/b rw,vers=3,hard,proto=tcp,local_lock=flock,addr=10.0.0.2
46 26 0:41 / /nfs-posix rw,relatime shared:24 - nfs nas:/c rw,vers=3,hard,proto=tcp,local_lock=posix,addr=10.0.0.2
47 26 0:42 / /lustre/scratch rw,noatime shared:25 - lustre 10.1.0.1@o2ib:10.1.0.2@o2ib:/scratch rw,flock,lazystatfs
48 26 0:43 / /lustre/work rw,noatime shared:26 - lustre 10.1.0.1@o2ib:/work rw,checksum,localflock,user_xattr
49 26 0:44 / /gpfs/fs1 rw,relatime - gpfs fs1 rw
50 26 0:45 / /var/lib/docker/overlay2/ab/merged rw,relatime shared:27 master:3 - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/u,workdir=/w
51 26 8:17 /data /mnt/My\040Passport\011\134\303\274 rw,relatime shared:28 - ext4 /dev/disk/by-label/My\040Passport rw
52 43 0:46 / /home/lab rw,relatime shared:29 - nfs4 fast:/lab rw,vers=4.1,local_lock=none
53 52 0:47 / /home/lab rw,relatime shared:30 - tmpfs tmpfs rw,size=1g
"""  # noqa: E501


@pytest.mark.parametrize(
    ("path", "described"),
    [
        ("/srv/study", "ext4, /dev/mapper/vg-root at /"),
        ("/home/ann/study", "nfs4, nas:/export/home at /home"),
        ("/homework", "ext4, /dev/mapper/vg-root at /"),
        ("/home/lab/study", "tmpfs, tmpfs at /home/lab"),  # mounted last, over another
        ("/lustre/scratch", "lustre, 10.1.0.1@o2ib:10.1.0.2@o2ib:/scratch at /lustre/scratch"),
        ("/gpfs/fs1/ann", "gpfs, fs1 at /gpfs/fs1"),  # without tags
        (
            "/var/lib/docker/overlay2/ab/merged/work",
            "overlay, overlay at /var/lib/docker/overlay2/ab/merged",
        ),
        ("/mnt/My Passport\t\\ü/eeg", "ext4, /dev/disk/by-label/My Passport at /mnt/My Passport\t\\ü"),
    ],
)
def test_the_file_system_of_a_path_is_the_one_that_is_mounted_nearest_above_it(
    path: str, described: str
) -> None:
    system = find_file_system(Path(path), LINES)
    assert system is not None and system.describe() == described and system.describe_locks() == ""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nfs3/study", "/nfs3 is nfs with nolock, local_lock=all: locks hold on this node only"),
        ("/nfs-flock", "/nfs-flock is nfs with local_lock=flock: locks hold on this node only"),
        ("/lustre/work/a", "/lustre/work is lustre with localflock: locks hold on this node only"),
        ("/nfs-posix", ""),  # flock is another kind of lock
        ("/lustre/scratch", ""),
    ],
)
def test_locks_that_hold_on_one_node_only_are_named(path: str, reason: str) -> None:
    system = find_file_system(Path(path), LINES)
    assert system is not None
    assert system.describe_locks() == (f"{reason}; claims by heartbeat still work" if reason else "")


def test_the_list_of_this_machine_is_read() -> None:
    system = find_file_system(Path("/proc/self"), MOUNTS.read_text())
    assert system is not None and (system.kind, os.path.ismount(system.folder)) == ("proc", True)


@pytest.mark.parametrize(
    "mounts", ["", "\n", "26 1 253:0 / /", "26 1 253:0 / / rw - ", " - ext4 /dev/sda1 rw"]
)
def test_a_list_without_mounts_has_none(mounts: str) -> None:
    assert find_file_system(Path("/home"), mounts) is None
