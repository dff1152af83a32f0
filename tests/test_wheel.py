"""The wheel: what is in it, and that it works in a clean environment with the newest fastai and no development extra."""
from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.wheel


def run(*command, cwd, **env):
    "Runs a command without this environment's variables, and returns its standard output. Fails with all it said."
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(('DLBOOK_', 'PYTHON')) and name != 'VIRTUAL_ENV'}
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, encoding='utf-8',
                          env={**clean, 'PYTHONIOENCODING': 'utf-8', **env})
    assert done.returncode == 0, f'{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}'
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built from a copy of what git tracks, so that no stray file gets in and none is left behind."
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    names = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split('\0')):
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    # With setuptools at hand nothing has to be downloaded to build.
    isolation = ['--no-isolation'] if importlib.util.find_spec('setuptools') else []
    run(sys.executable, '-m', 'build', '--wheel', *isolation, '--outdir', out, source, cwd=out)
    built, = out.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    "The `bin` folder of a new virtual environment with the wheel and what it requires, in its newest versions."
    folder = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', folder / 'venv', cwd=folder)
    scripts = folder / 'venv' / ('Scripts' if os.name == 'nt' else 'bin')
    run(scripts / 'python', '-m', 'pip', 'install', '--quiet', '--no-compile', '--disable-pip-version-check', wheel,
        cwd=folder)
    yield scripts
    shutil.rmtree(folder, ignore_errors=True)  # 6 GB


def test_wheel_is_small_and_carries_the_chapters_without_outputs(wheel):
    assert wheel.stat().st_size < 3_000_000
    chapters = sorted(path.name for path in (ROOT / 'nbs').glob('[0-9][0-9]_*.ipynb'))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert sorted(Path(name).name for name in names if name.endswith('.ipynb')) == chapters
        assert {'dlbook/chapters/results.json', 'dlbook/chapters/references.bib'} <= names
        assert archive.read('dlbook/chapters/references.bib') == (ROOT / 'nbs/references.bib').read_bytes()
        for name in chapters:
            cells = json.loads(archive.read(f'dlbook/chapters/{name}'))['cells']
            original = json.loads((ROOT / 'nbs' / name).read_text(encoding='utf-8'))['cells']
            assert [cell['source'] for cell in cells] == [cell['source'] for cell in original]
            assert all(cell['outputs'] == [] and cell['execution_count'] is None
                       for cell in cells if cell['cell_type'] == 'code')
        modules = {name for name in names if name.endswith('.py')}
        tracked = subprocess.run(['git', 'ls-files', 'dlbook'], cwd=ROOT, capture_output=True, check=True, text=True)
        assert modules == {name for name in tracked.stdout.split() if name.endswith('.py')}
        assert all(name.startswith(('dlbook/', 'dlbook-')) for name in names)


def test_wheel_requires_what_settings_say_and_no_development_tools(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata, = (archive.read(name).decode() for name in archive.namelist() if name.endswith('/METADATA'))
    required = [line.removeprefix('Requires-Dist: ') for line in metadata.splitlines() if line.startswith('Requires-Dist')]
    always = [line for line in required if 'extra ==' not in line]
    assert any(line.startswith('fastai') for line in always)
    assert not any(line.startswith(('nbdev', 'pytest', 'hypothesis', 'micrograd')) for line in always)
    assert not any('<' in line for line in always)  # no upper bounds


@pytest.mark.timeout(1200)
def test_wheel_works_in_a_clean_environment_with_the_newest_fastai(installed, tmp_path):
    python, dlbook = installed / 'python', installed / 'dlbook'
    versions = run(python, '-m', 'pip', 'list', '--format=freeze', '--disable-pip-version-check', cwd=tmp_path)
    print(*(line for line in versions.splitlines() if line.startswith(('fast', 'torch', 'numpy', 'ipykernel'))))
    assert not any(line.startswith(('nbdev=', 'pytest=')) for line in versions.splitlines())
    fastcore, = (line for line in versions.splitlines() if line.startswith('fastcore='))
    assert int(fastcore.split('==')[1].split('.')[0]) >= 2, 'the development pin must not hold here'
    run(python, '-m', 'pip', 'check', cwd=tmp_path)
    where = run(python, '-c', 'import dlbook, dlbook.backprop; print(dlbook.__file__)', cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    listed = run(dlbook, 'list', cwd=tmp_path)
    assert '01' in listed and 'neurons' in listed
    ran = run(dlbook, 'run', 'neurons', cwd=tmp_path)
    assert '01_neurons: ok' in ran
    assert (tmp_path / 'dlbook-run' / '01_neurons.ipynb').exists()
    package = Path(where.strip()).parent
    assert not any(cell.get('outputs') for cell in json.loads(
        (package / 'chapters' / '01_neurons.ipynb').read_text(encoding='utf-8'))['cells'])
    assert '01_neurons.ipynb: new' in run(dlbook, 'lab', 'mine', '--no-launch', cwd=tmp_path)
