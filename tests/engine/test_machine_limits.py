"""Processors and memory as Linux tells of them, in the formats of its files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from vision_backends.engine.machine_limits import FreeMemory, free_memory, processors

NO_LIMIT = 9223372036854771712
"""What version 1 writes where there is no limit."""

MANY = "64000000 100000"
"""A quota beyond any machine of today."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has control groups")


class Linux:
    """The files of the kernel, in a folder.

    Args:
        root: The folder.
    """

    def __init__(self, root):
        self.root = root

    def write(self, path, *lines):
        """Write one of them."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))

    def process(self, *groups, mounts=()):
        """Write which groups the process is in, and which mounts it sees: each its root, place and kind."""
        self.write("/proc/self/cgroup", *groups)
        rows = [
            f"29 1 0:2{n} {top} {place} ro,relatime shared:9 - {kind}" for n, (top, place, kind) in enumerate(mounts)
        ]
        self.write("/proc/self/mountinfo", "21 1 253:0 / / rw shared:1 - ext4 /dev/vda rw", *rows)

    def machine(self, available_kb):
        """Write what the machine has left."""
        self.write("/proc/meminfo", "MemTotal:  999 kB", f"MemAvailable:   {available_kb} kB")

    def group(self, folder, *, limit=None, used=0, high=None, cpu=None, **stat):
        """Write the files of a group of version 2."""
        self.write(f"{folder}/memory.max", "max" if limit is None else limit)
        self.write(f"{folder}/memory.high", "max" if high is None else high)
        self.write(f"{folder}/memory.current", used)
        self.write(f"{folder}/memory.stat", "anon 7", *(f"{name} {value}" for name, value in stat.items()))
        self.write(f"{folder}/cpu.max", cpu or "max 100000")

    def old_group(self, folder, *, limit=NO_LIMIT, used=0, **stat):
        """Write the files of a group of version 1's memory controller."""
        self.write(f"{folder}/memory.limit_in_bytes", limit)
        self.write(f"{folder}/memory.usage_in_bytes", used)
        self.write(f"{folder}/memory.stat", "cache 7", *(f"{name} {value}" for name, value in stat.items()))

    @property
    def free_bytes(self):
        """How much memory is free."""
        found = free_memory(self.root)
        return None if found is None else found.size_bytes


@pytest.fixture
def linux(tmp_path):
    """Return a system without any file."""
    return Linux(tmp_path)


V2 = ("/", "/sys/fs/cgroup", "cgroup2 cgroup2 rw,nsdelegate")


def test_a_system_that_says_nothing_sets_no_limit(linux):
    """There may be neither /proc nor /sys; nobody guesses."""
    assert free_memory(linux.root) is None
    assert processors(linux.root) == len(os.sched_getaffinity(0))


def test_the_machines_own_memory_counts(linux):
    """It is the limit where there are no groups, or where theirs is beyond it."""
    linux.machine(1000)
    assert free_memory(linux.root) == FreeMemory(1_024_000)
    linux.process("0::/", mounts=[V2])
    linux.group("/sys/fs/cgroup", limit=9_000_000)
    assert free_memory(linux.root) == FreeMemory(1_024_000)
    linux.group("/sys/fs/cgroup", limit=900_000)
    assert linux.free_bytes == 900_000


@pytest.mark.parametrize(
    ("group", "free_bytes"),
    [
        ({"limit": None, "used": 5, "inactive_file": 1}, None),
        ({"limit": 900_000, "used": 500_000}, 400_000),
        ({"limit": 900_000, "used": 500_000, "inactive_file": 100_000, "active_file": 50_000}, 550_000),
        ({"limit": 900_000, "used": 500_000, "inactive_file": 1000, "active_file": 9000, "file_mapped": 4000}, 406_000),
        ({"limit": 900_000, "used": 500_000, "inactive_file": 100, "file_mapped": 4000}, 400_000),
        ({"limit": 400_000, "used": 500_000}, 0),
        ({"limit": 900_000, "used": 500_000, "high": 600_000}, 100_000),
        ({"limit": None, "used": 500_000, "high": 600_000}, 100_000),
        ({"limit": "", "used": ""}, None),
        ({"limit": 900_000, "used": ""}, 900_000),
    ],
)
def test_the_page_cache_is_free_and_files_in_use_are_not(linux, group, free_bytes):
    """Nor is anything beyond the mark above which the kernel slows a group down; empty files say nothing."""
    linux.process("0::/", mounts=[V2])
    linux.group("/sys/fs/cgroup", **group)
    assert linux.free_bytes == free_bytes


def test_without_proc_the_usual_places_are_read(linux):
    """As in a sandbox that hides it."""
    linux.group("/sys/fs/cgroup", limit=900_000, cpu="100000 100000")
    assert (linux.free_bytes, processors(linux.root)) == (900_000, 1)


def test_without_proc_the_usual_places_of_version_1_are_read(linux):
    """They have a folder per controller."""
    linux.old_group("/sys/fs/cgroup/memory", limit=900_000, used=100_000)
    linux.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000")
    linux.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert (linux.free_bytes, processors(linux.root)) == (800_000, 1)


SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope"


@pytest.mark.parametrize("tight", ["/user.slice", "/user.slice/user-1000.slice", SCOPE, ""])
def test_the_tightest_of_all_groups_around_counts(linux, tight):
    """A slice of systemd may be narrower than the scope in it; each is asked what it has left."""
    linux.process(f"0::{SCOPE}", mounts=[V2])
    names = SCOPE.split("/")
    for n in range(1, len(names) + 1):
        linux.group(f"/sys/fs/cgroup{'/'.join(names[:n])}", limit=9_000_000, used=1_000_000, cpu=MANY)
    linux.group("/sys/fs/cgroup/user.slice/user-1001.slice", limit=1, cpu="1000 100000")  # another one's
    assert linux.free_bytes == 8_000_000
    linux.group(f"/sys/fs/cgroup{tight}", limit=5_000_000, used=2_000_000, cpu="40000 50000")
    assert free_memory(linux.root) == FreeMemory(3_000_000, "the limit of 5 MB of this process's control group")
    assert processors(linux.root) == 1


MEMORY = "/sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("name", "top", "place", "folder"),
    [
        ("/docker/abc", "/docker/abc", MEMORY, MEMORY),
        ("/docker/abc/inner", "/docker/abc", MEMORY, f"{MEMORY}/inner"),
        ("/docker/abc", "/", MEMORY, f"{MEMORY}/docker/abc"),
        ("/docker/abc", "/", MEMORY, MEMORY),
        ("/kubepods/pod1/abc", "/", "/cg", "/cg/abc"),
    ],
)
def test_groups_of_version_1_are_found_where_they_are_mounted(linux, name, top, place, folder):
    """Docker mounts a part of the hierarchy, Kubernetes as well; its root is named, or the name is the host's."""
    mount = (top, place, "cgroup none rw,hugetlb,memory")
    linux.process("9:name=systemd:/x", f"4:hugetlb,memory:{name}", "0::/", mounts=[mount])
    linux.old_group(folder, limit=700_000, used=600_000, total_inactive_file=60_000, inactive_file=1)
    assert linux.free_bytes == 160_000


def test_no_limit_of_version_1_is_not_taken_for_one(linux):
    """The number for it is huge, and depends on the kernel."""
    linux.process("4:memory:/", mounts=[("/", "/sys/fs/cgroup/memory", "cgroup cgroup rw,memory")])
    for number in (NO_LIMIT, 2**64 - 1, 0x7FFFFFFFFFFF0000, -1):
        linux.old_group("/sys/fs/cgroup/memory", limit=number, used=5, hierarchical_memory_limit=number)
        assert linux.free_bytes is None


def test_version_1_tells_of_groups_that_cannot_be_seen(linux):
    """Such as that of the pod around a container."""
    linux.process("4:memory:/pod/c", mounts=[("/pod/c", "/sys/fs/cgroup/memory", "cgroup cgroup rw,memory")])
    linux.old_group("/sys/fs/cgroup/memory", used=200_000, hierarchical_memory_limit=700_000)
    assert linux.free_bytes == 500_000


def test_both_versions_may_be_mounted_at_the_same_time(linux):
    """Controllers belong to either; the other one's groups have no such files."""
    mounts = [
        ("/", "/sys/fs/cgroup/memory", "cgroup cgroup rw,memory"),
        ("/", "/sys/fs/cgroup/cpu,cpuacct", "cgroup cgroup rw,cpu,cpuacct"),
        ("/", "/sys/fs/cgroup/unified", "cgroup2 cgroup2 rw"),
    ]
    linux.process("4:memory:/a", "2:cpu,cpuacct:/b", "0::/c", mounts=mounts)
    linux.old_group("/sys/fs/cgroup/memory/a", limit=700_000)
    linux.write("/sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us", "99999")
    linux.write("/sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_period_us", "100000")
    linux.write("/sys/fs/cgroup/unified/c/cgroup.procs", "1")
    assert (linux.free_bytes, processors(linux.root)) == (700_000, 1)


@pytest.mark.parametrize("name", ["/system.slice/docker-abc.scope", "/", "/../../elsewhere", "/../.."])
def test_a_group_that_cannot_be_seen_is_the_outermost_one_that_can(linux, name):
    """A namespace hides what is around the container, and sometimes the container's own name."""
    linux.process(f"0::{name}", mounts=[V2])
    linux.group("/sys/fs/cgroup", limit=700_000, cpu="100000 100000")
    linux.group("/sys/fs/cgroup/elsewhere/../../elsewhere", limit=1)  # not this process's
    assert (linux.free_bytes, processors(linux.root)) == (700_000, 1)


def test_the_groups_of_containers_inside_are_not_ours(linux):
    """Docker in Docker mounts them too; a mount of what is around us counts, wherever it is."""
    mounts = [
        ("/docker/abc", "/sys/fs/cgroup", "cgroup2 cgroup rw"),
        ("/docker/abc/docker/inner", "/var/lib/docker/inner/cgroup", "cgroup2 cgroup rw"),
        ("/docker/other", "/other", "cgroup2 cgroup rw"),
        ("/", r"/host\040groups", "cgroup2 cgroup rw"),
    ]
    linux.process("0::/docker/abc", mounts=mounts)
    for place in ("/var/lib/docker/inner/cgroup", "/other", "/host groups/docker/other"):
        linux.group(place, limit=1, cpu="1000 100000")
    linux.group("/sys/fs/cgroup", limit=700_000)
    linux.group("/host groups/docker/abc", limit=700_000)
    linux.group("/host groups/docker", limit=600_000, used=100_000)
    assert linux.free_bytes == 500_000
    assert processors(linux.root) == processors()


def test_a_mount_from_outside_the_namespace_shows_groups_around(linux):
    """Its root is then above the namespace's."""
    linux.process("0::/", mounts=[("/../..", "/sys/fs/cgroup", "cgroup2 cgroup rw")])
    linux.group("/sys/fs/cgroup", limit=700_000)
    assert linux.free_bytes == 700_000


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("max 100000", None),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("0 100000", 1),
        ("", None),
        (MANY, None),
        ("5", 1),
    ],
)
def test_a_quota_of_time_counts_as_whole_processors(linux, quota, count):
    """Rounded up; it never adds any."""
    linux.process("0::/", mounts=[V2])
    linux.group("/sys/fs/cgroup", cpu=quota)
    assert processors(linux.root) == (count or len(os.sched_getaffinity(0)))


def test_processors_that_the_process_may_not_run_on_do_not_count():
    """As `taskset` and sets of processors have it."""
    code = f"""
import os
from vision_backends.engine.machine_limits import processors
os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})
print(processors())
"""
    assert int(subprocess.check_output([sys.executable, "-c", code])) == 1


def test_a_quota_is_rounded_up(linux, monkeypatch):
    """One and a half processors keep two threads busy."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    linux.process("0::/", mounts=[V2])
    for quota, count in (("150000 100000", 2), ("800000 100000", 8), ("max 100000", 64)):
        linux.group("/sys/fs/cgroup", cpu=quota)
        assert processors(linux.root) == count


def test_a_limit_of_the_address_space_counts():
    """`ulimit -v` counts memory that is reserved, too."""
    code = """
from vision_backends.engine.machine_limits import free_memory
found = free_memory()
print(found.size_bytes)
print(found.limit)
"""

    def narrow():
        resource.setrlimit(resource.RLIMIT_AS, (600_000_000, 600_000_000))

    said = subprocess.check_output([sys.executable, "-c", code], preexec_fn=narrow, text=True).splitlines()
    assert 200_000_000 < int(said[0]) < 600_000_000
    assert said[1] == "the limit of 600 MB on this process's address space (ulimit -v)"
