"""Gets Apache Kafka's jars with Maven, and finds a Java to run them."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

POM = Path(__file__).with_name("pom.xml")
MIN_JAVA = 17
MAVEN_TIMEOUT = 600.0  # seconds

# The first compiler tier alone starts the broker sooner and takes less CPU over a test's few seconds of load;
# perf data would leave a file in the system's temporary directory.
JVM_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


class KafkaUnavailable(Exception):
    """This machine cannot run Kafka; the text names what lacks."""


def kafka_version() -> str:
    """The version that pom.xml names."""
    found = ElementTree.parse(POM).findtext("{*}properties/{*}kafka.version")
    if found is None:
        raise ValueError(f"{POM} has no kafka.version property")
    return found


def kafka_home() -> Path:
    """The directory that holds, or will hold, Kafka's `libs`: FASTPROD_KAFKA_HOME, else one in the user's cache."""
    if home := os.environ.get("FASTPROD_KAFKA_HOME"):
        return Path(home).resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).resolve() / "fastprod" / f"kafka-{kafka_version()}"


@functools.cache
def java_command() -> str:
    """Path of a Java that runs the broker. Raises KafkaUnavailable."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise KafkaUnavailable(f"no java in JAVA_HOME ({home})" if home else "no java on PATH")
    said = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < MIN_JAVA:
        raise KafkaUnavailable(f"Java {MIN_JAVA} or newer needed; {java} says: {said.strip()[:200]}")
    return java


def assemble() -> Path:
    """Directory with Kafka's jars, downloaded by the first call on this machine. Raises KafkaUnavailable."""
    java_command()
    libs = kafka_home() / "libs"
    if libs.is_dir():
        return libs
    try:
        libs.parent.mkdir(parents=True, exist_ok=True)
        # Two test runs at once: the second waits for the first one's jars instead of downloading its own.
        with open(libs.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not libs.is_dir():
                _download(libs)
    except OSError as error:
        raise KafkaUnavailable(f"cannot write Kafka's jars to {libs}: {error}") from error
    return libs


def _download(libs: Path) -> None:
    """Copies the jars next to `libs` and renames: `libs` is there whole or not at all."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise KafkaUnavailable(f"no mvn on PATH, and no jars in {libs}")
    with tempfile.TemporaryDirectory(prefix="download-", dir=libs.parent) as scratch:
        part = Path(scratch) / "libs"
        command = [mvn, "-B", "-q", "-Dstyle.color=never", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={part}"]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MAVEN_TIMEOUT
            )
        except subprocess.TimeoutExpired as error:
            raise KafkaUnavailable(f"mvn took longer than {MAVEN_TIMEOUT:.0f} s") from error
        if done.returncode or not part.is_dir():
            last = "\n".join(done.stdout.strip().splitlines()[-15:])
            raise KafkaUnavailable(f"mvn failed with status {done.returncode}:\n{last}")
        part.rename(libs)
