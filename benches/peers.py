"""docker, buildah and podman as they work on this machine, each with a store of its own in the bench's directory.

A peer is an object with `name`, and for each kind of work a method that returns a shell command, or None where it has no
such thing. `found` makes all that run here and tells why each other does not."""
import os
import shutil
import subprocess
import time


def found(directory, base, say):
    """Starts what runs here, with `base` (a root file system as tar) as image `busybox`."""
    peers = []
    for kind in (Docker, Buildah, Podman):
        try:
            peers.append(kind(os.path.join(directory, kind.__name__.lower()), base))
            say("beside: " + peers[-1].name)
        except (Missing, OSError, subprocess.SubprocessError) as why:
            text = getattr(why, "output", None) or str(why)
            say("without %s: %s" % (kind.__name__.lower(), text.strip().splitlines()[-1] if text.strip() else why))
    return peers


class Missing(Exception):
    """A program is not there."""


def program(name):
    path = shutil.which(name)
    if not path:
        raise Missing("%s is not installed" % name)
    return path


def own(directory, **more):
    """An environment in which temporary files, which some of them leave behind, go with the bench's directory."""
    return dict(os.environ, TMPDIR=directory, **more)


def check(script, env=None):
    done = subprocess.run(["sh", "-ec", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, script, done.stdout)
    return done.stdout


def trial(directory):
    context = os.path.join(directory, "trial")
    os.makedirs(context, exist_ok=True)
    with open(os.path.join(context, "Dockerfile"), "w") as out:
        out.write("FROM busybox\nRUN true\n")
    return context


class Peer:
    """What a peer can do; each method gives a shell command."""

    env = None

    def build(self, dockerfile, context, fresh=False):
        """A build of an image that is kept; `fresh` takes nothing from the cache."""

    def forget(self):
        """Makes the next build one that knows nothing of earlier ones."""

    def archive(self, dockerfile, context, compression, out):
        """A build that uses no cache, written as an OCI archive."""

    def unload(self):
        """Takes away what `load` brought."""

    def load(self, archive):
        """An image from an archive, unpacked and ready for containers."""

    def run(self):
        """A container without network that does nothing."""

    def stop(self):
        """Ends what the peer keeps running."""


class Docker(Peer):
    """A dockerd of its own. The steps have the machine's network, which is less work than one of their own."""

    def __init__(self, directory, base):
        dockerd = program("dockerd")
        near = os.path.join(os.path.dirname(os.path.dirname(dockerd)), "bin/docker")
        self.docker = near if os.access(near, os.X_OK) else program("docker")
        os.makedirs(directory)
        at = lambda name: os.path.join(directory, name)
        host = "unix://" + at("sock")
        self.env = own(directory, DOCKER_HOST=host, DOCKER_BUILDKIT="1", DOCKER_CONFIG=at("config"))
        argv = [dockerd, "--data-root", at("data"), "--exec-root", at("exec"), "--pidfile", at("pid"), "--host", host,
                "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none"]
        with open(at("log"), "w") as log:
            self.daemon = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            self._wait()
            check("%s import '%s' busybox:latest" % (self.docker, base), self.env)
            kind = self._builder(trial(directory))
            version = check("%s version --format '{{.Server.Version}}'" % self.docker, self.env).strip()
            self.name = "docker %s, %s" % (version.split("+")[0], kind)
        except BaseException:
            self.stop()
            raise

    def _wait(self):
        for _ in range(100):
            if subprocess.run([self.docker, "info"], env=self.env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0 and self.daemon.poll() is None:
                return
            if self.daemon.poll() is not None:
                break
            time.sleep(0.2)
        raise Missing("dockerd does not start here")

    def _builder(self, context):
        """BuildKit where the client can ask for it: newer ones need the plugin docker-buildx."""
        try:
            check("%s build -q --network host %s" % (self.docker, context), self.env)
            return "BuildKit"
        except subprocess.CalledProcessError:
            self.env["DOCKER_BUILDKIT"] = "0"
            check("%s build -q --network host %s" % (self.docker, context), self.env)
            return "the classic builder, since its BuildKit needs docker-buildx"

    def build(self, dockerfile, context, fresh=False):
        flags = "--no-cache" if fresh else ""
        return "%s build -q %s --network host -t bench -f %s %s" % (self.docker, flags, dockerfile, context)

    def forget(self):
        return "%s builder prune -af" % self.docker

    def unload(self):
        return "%s rmi -f debian; true" % self.docker

    def load(self, archive):
        return "%s load -i %s" % (self.docker, archive)

    def run(self):
        return "%s run --rm --network none busybox true" % self.docker

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait()


class Containers(Peer):
    """What buildah and podman have in common."""

    # where a machine forbids the limits that they raise by themselves
    LIMITS = ["", " --ulimit nofile=1024:1024 --ulimit nproc=1024:1024",
              " --ulimit nofile=20000:20000 --ulimit nproc=90000:90000"]

    def first(self, options, script):
        """Gives the first of `options` with which a script works."""
        for last in options:
            try:
                check(script % last, self.env)
                return last
            except subprocess.CalledProcessError as why:
                failure = why
        raise failure


class Buildah(Containers):
    def __init__(self, directory, base):
        store = "--root %s/root --runroot %s/run" % (directory, directory)
        self.buildah = "%s %s" % (program("buildah"), store)
        self.env = own(directory)
        os.makedirs(directory)
        check("c=$(%s from scratch); %s add -q $c '%s' /; %s commit -q $c busybox; %s rm $c" % (
            self.buildah, self.buildah, base, self.buildah, self.buildah))
        self.flags = "--isolation chroot --network host --layers"
        build = "%s build -q %s%%s %s" % (self.buildah, self.flags, trial(directory))
        self.flags += self.first(self.LIMITS, build)
        self.name = "buildah %s" % check("%s --version" % self.buildah).split()[2]

    def build(self, dockerfile, context, fresh=False):
        flags = self.flags + (" --no-cache" if fresh else "")
        return "%s build -q %s -t bench -f %s %s" % (self.buildah, flags, dockerfile, context)

    def archive(self, dockerfile, context, compression, out):
        # what is pushed before is known by its digest, and would not be compressed again
        how = "--disable-compression" if compression == "uncompressed" else "--compression-format " + compression
        return "rm -f %s; %s && %s push -q %s bench oci-archive:%s" % (
            out, self.build(dockerfile, context, fresh=True), self.buildah, how, out)


class Podman(Containers):
    """Loads and runs; its builds are buildah's."""

    def __init__(self, directory, base):
        self.plain = "%s --root %s/root --runroot %s/run --cgroup-manager cgroupfs" % (
            program("podman"), directory, directory)
        self.env = own(directory)
        os.makedirs(directory)
        check("%s import '%s' busybox:latest" % (self.plain, base))
        runtimes = [shutil.which(name) for name in ("crun", "runc")]
        ways = [" --runtime %s run --rm --network none%s%s" % (runtime, groups, limits) for runtime in runtimes if runtime
                for groups in ("", " --cgroups=disabled") for limits in self.LIMITS]
        self.way = self.first(ways, self.plain + "%s busybox true")
        self.name = "podman %s, %s" % (
            check("%s --version" % self.plain).split()[2], os.path.basename(self.way.split()[1]))

    def unload(self):
        return "%s rmi -f debian; true" % self.plain

    def load(self, archive):
        return "%s load -q -i %s" % (self.plain, archive)

    def run(self):
        return "%s%s busybox true" % (self.plain, self.way)
