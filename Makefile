# What a developer needs. Each target sets up what it needs on Debian and Ubuntu, and says what is missing elsewhere.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo deb docs sbom test test-deb test-boot faults soak fuzz sanitize bench bench-ring bench-viewers bench-latency bench-latency-players bench-encoders bench-streamgear audit web screenshots lint fmt fmt-check setup

help:
	@echo "make demo   two test cameras in a browser"
	@echo "make test   formatting, lints, and all tests"
	@echo "make deb    a Debian package, in target/debian"
	@echo "make docs   the documentation as a site, in target/docs"
	@echo "make sbom   what the program is made of, in target/ringgear.cdx.json"
	@echo "make test-deb   the package in a Debian of its own: install, upgrade, purge (root)"
	@echo "make test-boot  the package in a container that boots: service, watchdog, reload, restarts (root)"
	@echo "make faults the whole fault matrix: each part broken under three players"
	@echo "make soak   the long tests: minutes of load instead of seconds"
	@echo "make fuzz   hostile bytes into every reader, ten minutes each"
	@echo "make sanitize  the tests of the ring and its clients under sanitizers and Miri"
	@echo "make bench  Ringgear beside FFmpeg alone, StreamGear and nginx, into docs/performance.md; QUICK=1 in three minutes, without that file"
	@echo "make bench-ring  the ring beside memcpy, GStreamer and a socket"
	@echo "make bench-viewers  2,000 viewers waiting for one part, beside a bare loop of writes"
	@echo "make bench-latency  commit to fetchable part, beside FFmpeg's muxers and StreamGear"
	@echo "make bench-encoders  how long a picture stays in FFmpeg: as the daemon calls it, and with other threads, filters, lookahead"
	@echo "make bench-latency-players  how old pictures are when hls.js, Shaka, dash.js and the page show them"
	@echo "make bench-streamgear  the same script with vidgear's StreamGear and with Ringgear's, frames per second"
	@echo "make lint   formatting and lints"
	@echo "make fmt    format the code"
	@echo "make web    the player, bundled into the next build"
	@echo "make screenshots  the docs' pictures of the pages, on a machine with nothing else to do"
	@echo "make audit  licences and advisories of the dependencies"
	@echo "make setup  install what all of these need"

demo:
	@scripts/setup demo
	@$(MAKE) --no-print-directory web
	cargo run --profile demo --locked -- demo

# The player goes into the binary, so it is built before anything is compiled.
test:
	@scripts/setup test
	@$(MAKE) --no-print-directory web
	@$(MAKE) --no-print-directory lint
	@scripts/test

deb:
	@scripts/setup deb
	@$(MAKE) --no-print-directory web
	@mkdir -p "$${CARGO_TARGET_DIR:-target}/debian"
	RINGGEAR_DEB_DIR="$${CARGO_TARGET_DIR:-target}/debian" debian/rules clean binary

docs:
	@scripts/docs

# CycloneDX, of what is linked into the program and of its pages' players.
sbom:
	@scripts/setup demo
	@scripts/sbom

# Of the package that `make deb` has made last.
test-deb:
	@scripts/setup test-deb
	@scripts/test-deb

test-boot:
	@scripts/setup test-deb
	@scripts/test-boot

# docs/reliability.md, as root: some of its rows mount file systems. `make test` runs a part of them.
faults:
	@scripts/setup test
	RINGGEAR_SHOW_ALL=1 cargo test --locked --test faults -- --include-ignored --test-threads=1 --nocapture
	RINGGEAR_SHOW_ALL=1 cargo test --locked --test it -- --include-ignored --test-threads=1 --nocapture camera_faults:: encoder:: disk:: restarts:: isolation:: limits:: player_page:: renditions::

# What takes too long for every change: the tests that a duration is given to, for ten minutes, and a thousand crashes. On a
# machine that is busy with other work it fails, for whether attacks delay other streams can't be measured there.
soak:
	@scripts/setup test
	RINGGEAR_SOAK_SECONDS=600 cargo test --release --locked --test it -- --include-ignored --test-threads=1 --nocapture load:: live_edge::
	RINGGEAR_SOAK_SECONDS=3600 cargo test --release --locked --test it -- --include-ignored --nocapture an_encoder_that_waits_for_a_busy_machine
	cargo test --release --locked --lib every_encoder_holds_its_bitrate -- --ignored --nocapture
	RINGGEAR_KILLS=1000 RINGGEAR_QUIET=1 cargo test --release --locked --test it -- --test-threads=1 --nocapture crashes:: hostile::
	RINGGEAR_SHOW_ALL=1 RINGGEAR_KILLS=100 cargo test --release --locked --features faults --test faults -- --include-ignored --test-threads=1 --nocapture --skip random
	RINGGEAR_SOAK_SECONDS=1800 cargo test --release --locked --features faults --test faults -- --include-ignored --nocapture random
	@scripts/loom long

# RINGGEAR_FUZZ_SANITIZER=address adds AddressSanitizer.
fuzz:
	@scripts/setup demo
	@scripts/fuzz 600

sanitize:
	@scripts/setup test
	@scripts/sanitize

# ONLY=flat_out,serving runs some of the comparisons; ACCEPT=1 takes what hot paths cost now as what they may cost. Peers from PyPI go into target/bench.
bench:
	@scripts/setup bench
	@$(MAKE) --no-print-directory web
	cargo build --release --locked -p ringgear --bins --examples
	python3 -m pip wheel -q --disable-pip-version-check --no-deps -w "$${CARGO_TARGET_DIR:-target}/bench/wheels" ./clients/python
	python3 -B benches/bench.py $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(ACCEPT),--accept)

bench-ring:
	@scripts/setup test
	cargo bench --locked -p ringgear-ring --bench ring

# vidgear is installed from PyPI into target/bench.
bench-streamgear:
	@$(MAKE) --no-print-directory bench ONLY=streamgear

bench-viewers:
	@scripts/setup demo
	cargo bench --locked -p ringgear --bench viewers

# StreamGear is installed from PyPI into target/bench.
bench-latency:
	@scripts/setup test
	cargo build --release --locked
	python3 benches/latency.py --ringgear "$${CARGO_TARGET_DIR:-target}/release/ringgear"

bench-encoders:
	@scripts/setup demo
	cargo build --release --locked
	python3 benches/encoders.py --ringgear "$${CARGO_TARGET_DIR:-target}/release/ringgear"

# On a quiet machine: it fails by its goals. RINGGEAR_BENCH_SECONDS says how long each is measured; 60 without it.
bench-latency-players:
	@scripts/setup test
	@$(MAKE) --no-print-directory web
	cargo bench --locked -p ringgear --bench players
	RINGGEAR_FIRST_PICTURE_SECONDS=3 cargo test --release --locked --test it -- --nocapture the_demos_two_cameras_play

lint: fmt-check
	cargo clippy --workspace --all-targets --locked -- -D warnings

fmt:
	cargo fmt --all

fmt-check:
	cargo fmt --all --check

web:
	@if [ ! -f web/package.json ]; then \
		echo "web: there is no web/package.json; nothing to build"; \
	elif ! command -v npm >/dev/null; then \
		echo "web: npm is missing, so the pages have no bundled player; install Node.js 18 or later with npm"; \
	else \
		cd web && npm ci --no-audit --no-fund --loglevel=error && npm run build --silent; \
	fi

screenshots:
	@scripts/setup test
	@$(MAKE) --no-print-directory web
	@scripts/screenshots

audit:
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --locked check licenses bans sources
	@if cargo deny --locked fetch db; then \
		cargo deny --locked check --disable-fetch advisories; \
	else \
		echo "audit: advisories were NOT checked: their database can't be reached"; \
	fi

setup:
	@scripts/setup all
