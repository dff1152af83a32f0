"""What an import loads. How long it takes is measured by `python -m benchmarks.imports`; here the causes are held."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

HEAVY = {'fastai', 'matplotlib', 'sklearn', 'scipy', 'networkx', 'pandas', 'IPython', 'torchvision', 'PIL'}


def loaded_by(code):
    "Names of the modules that a fresh Python has loaded after `code`."
    code += '\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': ''})
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def roots(names):
    return {name.partition('.')[0] for name in names}


def test_import_dlbook_loads_nothing_but_itself():
    new = loaded_by('import dlbook') - loaded_by('pass')
    assert new == {'dlbook'}


def test_import_backprop_loads_nothing_heavy_beyond_torch():
    pytest.importorskip('dlbook.backprop')
    new = loaded_by('import dlbook.backprop') - loaded_by('import torch')
    assert not roots(new) & HEAVY, sorted(roots(new) & HEAVY)


@pytest.mark.parametrize('name', ['cli', 'runner', 'results'])
def test_the_command_line_loads_no_torch(name):
    new = loaded_by(f'import dlbook.kit.{name}') - loaded_by('pass')
    assert not roots(new) & (HEAVY | {'torch', 'numpy', 'nbclient', 'nbformat', 'jupyter_client'})


@pytest.mark.parametrize('path', sorted((ROOT / 'dlbook' / 'kit').glob('[!_]*.py')), ids=lambda path: path.stem)
def test_the_kit_imports_no_chapter(path):
    chapters = {notebook.stem.split('_', 1)[1] for notebook in (ROOT / 'nbs').glob('[0-9][0-9]_*.ipynb')}
    new = loaded_by(f'import dlbook.kit.{path.stem}')
    assert not {f'dlbook.{name}' for name in chapters} & new
