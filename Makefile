# Every target works on a fresh Debian or Ubuntu machine with Swift 6.3 and this file.
.POSIX:
.PHONY: help deps lint build test demo bench-ring

# libxen-dev: XenNative and the C oracle. e2fsprogs: the demo's ext4 image. valgrind: counts instructions.
PACKAGES = libxen-dev pkg-config e2fsprogs valgrind
SWIFT_SOURCES = Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Sources \
  Examples/Package.swift Examples/Sources

help:
	@echo "make demo    a disk and packets through both ends of both drivers, no hypervisor needed"
	@echo "make test    lint, then every test"
	@echo "make bench-ring  the ring beside the C macros: instructions, allocations, retains"
	@echo "make lint    check the layout of the Swift sources"

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

lint:
	swift format lint --strict --recursive $(SWIFT_SOURCES)

build: deps
	swift build

test: deps lint
	swift test --disable-xctest

# Fails when the ring costs more than Benchmarks/thresholds.txt allows.
bench-ring: deps
	Benchmarks/ring-thresholds
