# make demo    pre-train on photographs, pictures at the end
# make check   format, types and the quick half of the tests, in a few minutes
# make test    format, types and the whole test suite
# make thorough  the same and all that the suite tries a part of, an hour
# make gpu     all that only a GPU can show, an hour, with a page of results at the end
# Options:     STACK=cuda12 for a V100, PYTHON=python3.12, VENV=/some/folder,
#              PYTEST_ADDOPTS='-m "not timing and not exhaustive"' for make test on a shared machine

PYTHON ?= python3
STACK ?= cuda13
VENV ?= .venv-$(STACK)
PYTEST = $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

demo: $(VENV)/.installed-demo
	$(VENV)/bin/python -m dptmat.demo photos
	rm -rf runs/demo
	$(VENV)/bin/dptmat pretrain --data photos --out runs/demo --steps 80 --batch-size 4 --lr 5e-4 --log-every 5

# Types beside the tests: the checker computes on one core for half a minute the first time.
check: style
	$(MAKE) --no-print-directory --jobs 2 types quick

test: style
	$(MAKE) --no-print-directory --jobs 2 types suite

thorough: $(VENV)/.installed-test
	$(PYTEST) -m ""

gpu: $(VENV)/.installed-test
	$(VENV)/bin/python benchmarks/first_hour.py --out runs/gpu

quick: $(VENV)/.installed-test
	$(PYTEST) -m "not slow and not timing and not exhaustive"

suite: $(VENV)/.installed-test
	$(PYTEST)

style: $(VENV)/.installed-test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

# kernels/ and pipelines/ are installed inside of dptmat, which mypy sees only where they lie there.
types: $(VENV)/.installed-test
	rm -rf build/types && mkdir -p build/types/dptmat
	ln -s $(CURDIR)/dptmat/* $(CURDIR)/kernels $(CURDIR)/pipelines build/types/dptmat
	cd build/types && $(abspath $(VENV))/bin/python -m mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p dptmat

$(VENV)/.installed-%: setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "dptmat needs Python 3.10 or later; say which one: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module; install it: apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[$(STACK),$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info photos runs

.PHONY: demo check test thorough gpu quick suite style types clean
