"""The tools that a workload runs under, one row each."""
import os
import shutil

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
JEMALLOC = f"{LIBRARIES}/libjemalloc.so.2"
TCMALLOC = f"{LIBRARIES}/libtcmalloc.so.4"


class Tool:
    def __init__(self, name, title, prefix=None, environment=None, needs=None, most_runs=1000, by_default=True):
        self.name = name
        self.title = title
        self.prefix = prefix or (lambda options, directory: [])
        self.environment = environment or (lambda directory: {})
        self.needs = needs
        self.most_runs = most_runs
        self.by_default = by_default

    def available(self):
        return self.needs is None or os.path.exists(self.needs) or shutil.which(self.needs) is not None


def nodeleak(*extra):
    return lambda options, directory: [options.nodeleak, "-q", f"--output={directory}/%n.%p.rec", *extra, "--"]


TOOLS = [
    Tool("bare", "bare"),
    Tool("nodeleak", "nodeleak", nodeleak()),
    Tool("sampled", "nodeleak --sample=512KiB", nodeleak("--sample=512KiB")),
    # Raw: heaptrack's cheapest, what it interprets afterwards is not counted.
    Tool("heaptrack", "heaptrack --raw", lambda options, directory: ["heaptrack", "--raw", "-o", f"{directory}/heaptrack"],
         needs="heaptrack"),
    Tool("jemalloc", "jemalloc prof", environment=lambda directory: {
        "LD_PRELOAD": JEMALLOC, "MALLOC_CONF": f"prof:true,prof_final:true,prof_prefix:{directory}/jeprof"},
         needs=JEMALLOC),
    Tool("gperftools", "gperftools", environment=lambda directory: {
        "LD_PRELOAD": TCMALLOC, "HEAPPROFILE": f"{directory}/tcmalloc"}, needs=TCMALLOC),
    # Some twenty times slower: one run, on request.
    Tool("massif", "valgrind massif", lambda options, directory: [
        "valgrind", "--tool=massif", "--smc-check=all-non-file", f"--massif-out-file={directory}/massif.%p"],
         needs="valgrind", most_runs=1, by_default=False),
]
