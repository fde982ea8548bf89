# SPDX-License-Identifier: GPL-2.0
#
# What a person types.  `make help` lists it.  Everything is built and run in
# a Debian root of the testbed's own (tools/testbed/), but for `make KDIR=...`.

# Kernel to build for and boot: a version of Debian's, "newest" if not named.
export KERNEL ?=
# Where what is slow to make is kept (default: the user's cache directory).
export RUST_VDPA_CACHE ?=
# Mirror of the Debian archive (default: the one this machine uses).
export MIRROR ?=
# "software": run shows the device in software (for run).
export DEVICE ?=
# Suites of selftests to run instead of all (for test).
export TESTS ?=

testbed := tools/testbed
modules := build/modules

# Seconds for each target (for fuzz).
FUZZ_TIME ?= 600

# For install: the kernel to install for, and a root other than /.
KVER ?= $(shell uname -r)
INSTALL_MOD_PATH ?=

.PHONY: all run test bench fuzz shell install uninstall doc lint fmt clean distclean help

ifdef KDIR
# Any prepared kernel tree, with the tools of this machine.
all:
	+$(testbed)/modules.sh "$(KDIR)"
else
all:
	@$(testbed)/build.sh
endif

run:
	@$(testbed)/run.sh

test:
	@$(testbed)/test.sh

bench:
	@$(testbed)/bench.sh

fuzz:
	@$(testbed)/in-root.sh tools/mlx5-model/fuzz/fuzz.py --seconds "$(FUZZ_TIME)"

shell: all
	@$(testbed)/vm.sh

install:
	@$(testbed)/install.sh install "$(KVER)" "$(INSTALL_MOD_PATH)"

uninstall:
	@$(testbed)/install.sh uninstall "$(KVER)" "$(INSTALL_MOD_PATH)"

doc:
	@$(testbed)/doc.sh

lint:
	@$(testbed)/lint.sh

fmt:
	@$(testbed)/in-root.sh tools/testbed/rustfmt.sh

clean:
	rm -rf build

# Also what other checkouts share: the roots, the kernels, the crates.
distclean: clean
	@$(testbed)/distclean.sh

help:
	@echo 'Needs root on a Debian machine; installs what it needs and says so.'
	@echo
	@echo '  make            build the modules (build/modules/*.ko)'
	@echo '  make run        a legacy and a modern guest on vDPA devices of a NIC (a model'
	@echo '                  of one) that a Rust driver has; DEVICE=software: in turn on a'
	@echo '                  device without hardware'
	@echo '  make test       all tests, on the host and in virtual machines'
	@echo '  make bench      benchmarks (build/bench/*.jsonl)'
	@echo '  make fuzz       libFuzzer on the model of the NIC, FUZZ_TIME=600 seconds each'
	@echo '  make shell      a shell in the host virtual machine, modules loaded'
	@echo '  make install    into /lib/modules/$$(uname -r)/updates; uninstall removes'
	@echo '  make doc        the documentation (build/doc/index.html)'
	@echo '  make lint       formatting, clippy, licences, checkpatch'
	@echo '  make fmt        format the Rust sources'
	@echo '  make clean      remove build/; distclean removes the shared cache too'
	@echo
	@echo '  KERNEL=7.3.4    a certain kernel of the distribution (default: newest)'
	@echo '  KDIR=DIR        with all: build against a prepared kernel tree, with'
	@echo '                  the tools of this machine'
	@echo '  KVER=VERSION    with install: for another kernel than the running one'
	@echo '  RUST_VDPA_CACHE=DIR   where roots and kernels are kept'
	@echo '  RUST_VDPA_ACCEL=kvm|tcg   instead of finding out'
	@echo '  TESTS=SUITE     with test: only that suite of selftests'
	@echo '  MIRROR=URL      mirror of the Debian archive'
