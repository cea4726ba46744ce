"""The programs that are measured, one row each. `work` is scaled by --scale."""
import os

HERE = os.path.dirname(os.path.abspath(__file__))
TYPESCRIPT_SOURCES = 60


def never_missing(major, options):
    return None


class Workload:
    by_default = True

    def __init__(self, name, arguments, work=0, missing=never_missing):
        self.name = name
        self.arguments = arguments
        self.work = work
        self.missing = missing

    def command(self, node, options, scratch):
        count = max(1, int(self.work * options.scale))
        return [node] + self.arguments(count, options, scratch)


def script(name, *more):
    """A file of bench/workloads with the amount of work and further arguments ({cache}, {scratch})."""
    def arguments(count, options, scratch):
        return [os.path.join(HERE, "workloads", name), str(count)] + [
            text.format(cache=options.cache, scratch=scratch) for text in more]
    return arguments


def package(path, *more):
    def arguments(count, options, scratch):
        return [os.path.join(options.cache, "node_modules", path)] + [
            text.format(cache=options.cache, scratch=scratch) for text in more]
    return arguments


def typescript(count, options, scratch):
    """Compiles generated classes that use node's types: most of the time goes into checking those."""
    for number in range(TYPESCRIPT_SOURCES):
        with open(os.path.join(scratch, f"source{number}.ts"), "w", encoding="ascii") as source:
            source.write("import * as http from 'http';\nimport { EventEmitter } from 'events';\n")
            source.write(f"export class Service{number}<T extends {{ id: number }}> extends EventEmitter {{\n")
            source.write("  private readonly items = new Map<number, T>();\n")
            for method in range(20):
                source.write(f"  find{method}(wanted: (item: T) => boolean): T[] {{ return "
                             f"[...this.items.values()].filter(wanted).sort((a, b) => a.id - b.id + {method}); }}\n")
            source.write("  serve(port: number): http.Server { return http.createServer((request, response) => "
                         "{ response.end(JSON.stringify([...this.items.values()])); }).listen(port); }\n}\n")
    return [os.path.join(options.cache, "node_modules/typescript/lib/tsc.js"), "--noEmit", "--strict", "--target", "es2022",
            "--module", "commonjs", "--typeRoots", os.path.join(options.cache, "node_modules/@types"), "--types", "node",
            ] + [os.path.join(scratch, f"source{number}.ts") for number in range(TYPESCRIPT_SOURCES)]


def needs_packages(*names):
    def missing(major, options):
        gone = [name for name in names if not os.path.isdir(os.path.join(options.cache, "node_modules", name))]
        return f"npm could not fetch {', '.join(gone)}" if gone else None
    return missing


def needs_certificate(major, options):
    return None if os.path.exists(os.path.join(options.cache, "certificate.pem")) else "no certificate (openssl)"


def needs_node_sqlite(major, options):
    return None if major >= 24 else "this node has no node:sqlite without a flag"


def inline(code):
    return lambda count, options, scratch: ["-e", code]


WORKLOADS = [
    Workload("startup", inline("0")),
    Workload("http", script("http.cjs"), 10_000),
    Workload("https", script("https.cjs", "{cache}/key.pem", "{cache}/certificate.pem"), 8_000, needs_certificate),
    Workload("zlib", script("zlib.cjs"), 4_000),
    Workload("crypto", script("crypto.cjs"), 60_000),
    Workload("json", script("json.cjs"), 2_000),
    Workload("buffer", script("buffer.cjs"), 1_500_000),
    Workload("fs", script("fs.cjs", "{scratch}"), 60),
    Workload("worker", script("worker.cjs"), 60_000),
    Workload("npm", package("npm/bin/npm-cli.js", "ls", "--all", "--prefix={cache}", "--cache={scratch}"),
             missing=needs_packages("npm")),
    Workload("typescript", typescript, missing=needs_packages("typescript", "@types/node")),
    Workload("sharp", script("sharp.cjs", "{cache}"), 60, needs_packages("sharp")),
    Workload("sqlite", script("sqlite.cjs"), 200_000, needs_node_sqlite),
]
