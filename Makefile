# Every target works on a fresh Debian or Ubuntu machine with Swift 6.3 and this file.
.POSIX:
.PHONY: help deps lint build programs test bench bench-all model genmc sanitize storm sanitize-address fuzz coverage xen-test demo

# libxen-dev: XenNative and the C oracle. e2fsprogs: the demo's ext4 image. valgrind: counts instructions.
# The rest: programs that the examples are tested with.
PACKAGES = libxen-dev liburing-dev libnbd-dev pkg-config e2fsprogs valgrind iproute2 iputils-ping iperf3 \
  libnbd-bin nbdkit qemu-utils fio python3
# The emulator that boots a real Xen, and what its image is made with.
XEN_TEST_PACKAGES = qemu-system-x86 cpio xz-utils
SWIFT_SOURCES = Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Sources \
  Examples/Package.swift Examples/Sources Examples/Tests \
  Fuzz/Package.swift Fuzz/Sources

help:
	@echo "make demo        a disk and packets through both ends of both drivers, no hypervisor needed"
	@echo "make test        lint, every test, the examples, the cost of the hot paths, and five cases of xen-test"
	@echo "make bench       what the hot paths cost: instructions, allocations, retains"
	@echo "make bench-all   every table by the clock beside its peer, and which goals were reached: some twenty minutes;"
	@echo "                 WRITE=1 puts them into docs/PERFORMANCE.md and Benchmarks/README.md"
	@echo "make model       check the models of the rings' notification protocol: every interleaving"
	@echo "make genmc       the same under C11's memory orders; builds the checker first"
	@echo "make sanitize    the rings' two ends in two threads under Thread Sanitizer"
	@echo "make storm       what hostile peers can do, at length: REQUESTS under each mutator, and SEEDS of whole systems"
	@echo "make sanitize-address    the same in short under Address Sanitizer"
	@echo "make fuzz        fuzz each target for SECONDS=30, and print what was reached"
	@echo "make coverage    line coverage of the sources by file"
	@echo "make xen-test    the drivers on a real Xen against Linux's own, emulated (SKIPPED where there is no QEMU)"
	@echo "make lint        check the layout of the Swift sources, what the documents name, and what the packages name"

# make deps PACKAGES="..." does the same for other packages.
deps:
	@command -v swift >/dev/null || { \
	  echo "swift is not on the PATH: install Swift 6.3 or later from swift.org and try again" >&2; exit 1; }
	@missing=; for package in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { \
	  echo "this is not a Debian-like system: install what corresponds to$$missing and try again" >&2; exit 1; }; \
	sudo=; if [ "$$(id -u)" != 0 ]; then \
	  command -v sudo >/dev/null || { \
	    echo "cannot install$$missing: not root, and there is no sudo; install them and try again" >&2; exit 1; }; \
	  sudo=sudo; \
	fi; \
	echo "installing$$missing"; \
	$$sudo apt-get update -q >/dev/null && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing >/dev/null || { \
	  echo "apt-get could not install$$missing: install them by hand and try again" >&2; exit 1; }

lint: deps
	swift format lint --strict --recursive $(SWIFT_SOURCES)
	docs/check
	Tests/check-package

build: deps
	swift build

# Xen's own xenstored and its clients, for the tests that speak with them; unpacked and not installed.
programs: deps
	@Tests/Xen/programs .rig/programs || { [ $$? = 77 ] && \
	  echo "SKIPPED: the tests with xenstored and its clients: their packages cannot be had"; }

test: deps lint programs
	swift test --disable-xctest
	@$(MAKE) -s model sanitize
	@$(MAKE) -s bench
	swift test --package-path Examples --disable-xctest
	@$(MAKE) -s xen-test CASES="platform linux-blkback linux-blkfront linux-netback linux-netfront"

# Each fails when a path costs more than the .txt file beside it allows.
bench: deps
	Benchmarks/ring-thresholds
	Benchmarks/driver-thresholds
	Benchmarks/block-growth

# DISKS: where the files of the disks lie. WRITE=1: the tables into the documents.
bench-all: deps
	@$(MAKE) -s deps PACKAGES=qemu-system-common # qemu-storage-daemon
	Benchmarks/all $(if $(WRITE),--write) $(DISKS)

# Seconds. What weak memory adds is `make genmc`'s: its checker is no package, and is built from source once.
model: deps
	@$(MAKE) -s deps PACKAGES="spin gcc"
	Models/run interleavings

genmc: deps
	@Models/genmc build
	Models/run orders

# Fails unless the same rings with relaxed memory orders, and without each barrier, are caught.
sanitize: deps
	Tests/Threads/run

# Some minutes a million requests; one seed takes about a second.
REQUESTS = 1000000
SEEDS = 10000
storm: deps
	SWIFT_XEN_STORM_REQUESTS=$(REQUESTS) swift test --disable-xctest --filter MutatorTests
	SWIFT_XEN_SEEDS=$(SEEDS) swift test --disable-xctest --filter SimulationTests

# In a folder of its own, since everything is built anew.
sanitize-address: deps
	SWIFT_XEN_STORM_REQUESTS=2000 SWIFT_XEN_SEEDS=5 swift test --disable-xctest --sanitize=address \
	  --scratch-path .build/address --filter SecurityTests
fuzz: deps
	Fuzz/run $(or $(SECONDS),30) $(TARGETS)

coverage: deps programs
	Tests/coverage

xen-test: deps
	@$(MAKE) -s deps PACKAGES="$(XEN_TEST_PACKAGES)" || { echo "xen-test: SKIPPED: $(XEN_TEST_PACKAGES) cannot be had"; exit 0; }; \
	Tests/Xen/run $(CASES)

demo: deps
	swift build --package-path Examples -c release --product demo
	Examples/.build/release/demo $(DEMO)
