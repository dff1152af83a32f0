"""What a newcomer meets who has half an installation, the wrong Python, no space, or no right to write: a sentence that says what to do."""
from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT, write_chapter
from test_cli import one_line, posix, without

from dlbook.kit import start


def python(*arguments, cwd, env=None, **options):
    "This Python as a process that finds this dlbook, and what `env` names before everything else."
    env = dict(env or {})
    path = os.pathsep.join([*filter(None, [env.pop('PYTHONPATH', '')]), str(ROOT)])
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, encoding='utf-8', timeout=120,
                          env={**os.environ, 'PYTHONIOENCODING': 'utf-8', **env, 'PYTHONPATH': path}, **options)


def module(folder, name, code):
    "The environment of a Python in which `import name` runs `code` instead."
    folder.mkdir(exist_ok=True)
    (folder / f'{name}.py').write_text(code)
    return {'PYTHONPATH': str(folder)}


def test_the_needed_packages_are_those_of_the_settings():
    config = configparser.ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    required = {re.match(r'[\w-]+', requirement)[0] for requirement in config['DEFAULT']['requirements'].split()}
    assert set(start.NEEDED.values()) == required
    assert start.missing() == [], 'the names by which Python imports them'


def test_the_command_alone_names_the_step_to_begin_with(dlbook):
    lines = dlbook().stdout.splitlines()
    assert lines[2].strip().startswith('dlbook lab') and 'begin here' in lines[2]


def test_the_command_works_as_a_module_and_says_its_own_name(book):
    env = {'DLBOOK_CHAPTERS': str(book)}
    assert 'dlbook lab' in python('-m', 'dlbook', cwd=book, env=env).stdout
    assert 'Usage: dlbook run' in python('-m', 'dlbook', 'run', '--help', cwd=book, env={**env, 'NO_COLOR': '1'}).stdout


@pytest.mark.parametrize('absent', [['typer'], ['typer', 'rich', 'fastcore', 'psutil', 'torch'], ['fastcore']])
def test_an_installation_without_what_it_is_built_on(book, tmp_path, absent):
    said = one_line(python('-m', 'dlbook', 'list', cwd=book, env=without(tmp_path / 'site', *absent)), 1)
    assert all(name in said for name in absent) and f'{sys.executable} -m pip install ' in said


def test_an_installation_in_an_empty_environment(tmp_path):
    "The package alone, in a Python that has nothing else: as after an installation that was interrupted."
    shutil.copytree(ROOT / 'dlbook', tmp_path / 'dlbook', ignore=shutil.ignore_patterns('__pycache__'))
    done = subprocess.run([sys.executable, '-I', '-S', '-c', f'import sys; sys.path.insert(0, {str(tmp_path)!r}); from dlbook.kit.start import main; main()'],
                          cwd=tmp_path, capture_output=True, encoding='utf-8')
    said = one_line(done, 1)
    assert f'{len(start.NEEDED)} packages' in said and 'pip install torch' in said


def test_a_package_of_the_command_that_is_broken(book, tmp_path):
    said = one_line(python('-m', 'dlbook', cwd=book, env=module(tmp_path / 'site', 'typer', 'from nowhere_at_all import x')), 1)
    assert 'nowhere_at_all' in said and 'pip install --force-reinstall' in said


def test_a_book_of_which_a_part_is_missing(tmp_path):
    shutil.copytree(ROOT / 'dlbook', tmp_path / 'dlbook', ignore=shutil.ignore_patterns('__pycache__'))
    (tmp_path / 'dlbook' / 'kit' / 'runner.py').unlink()
    done = subprocess.run([sys.executable, '-m', 'dlbook'], cwd=tmp_path, capture_output=True, encoding='utf-8', env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert 'a part of the book is missing' in one_line(done, 1) and '--no-deps dlbook' in done.stderr


def test_a_python_that_is_too_old_is_told_so(tmp_path):
    "pip refuses it by itself; this is for who comes with a copy of the folder."
    done = python('-c', 'import sys; sys.version_info = (3, 9, 2, "final", 0); import dlbook', cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith('ImportError: dlbook needs Python 3.10 or newer')
    import ast
    ast.parse((ROOT / 'dlbook' / '__init__.py').read_text(encoding='utf-8'), feature_version=(3, 6))  # else it fails before it can say so
    minimum = re.search(r'^min_python = (\d+)\.(\d+)', (ROOT / 'settings.ini').read_text(encoding='utf-8'), re.MULTILINE)
    assert f'version_info < ({minimum[1]}, {minimum[2]})' in (ROOT / 'dlbook' / '__init__.py').read_text(encoding='utf-8')


def test_run_and_lab_refuse_to_start_without_torch(book, dlbook, tmp_path):
    write_chapter(book, '01_good', 'x = 1')
    env = without(tmp_path / 'site', 'torch', 'sklearn')
    for command in (['run'], ['lab', 'mine']):
        said = one_line(dlbook(*command, env=env), 1)
        named = re.search(r'(\S+) -m pip install torch scikit-learn', said)[1]  # python, or python3: one program by two names
        assert 'torch and scikit-learn are not installed' in said and os.path.samefile(named, sys.executable)
    assert not (book.parent / 'desk' / 'mine').exists()


def test_run_sends_to_the_doctor_who_finds_packages_that_do_not_fit(book, dlbook, tmp_path):
    write_chapter(book, '01_good', 'import torchvision')
    for code, word in (('raise RuntimeError("operator torchvision::nms does not exist")', 'nms'), ('raise ImportError("libjpeg.so: cannot open")', 'libjpeg')):
        env = module(tmp_path / 'site', 'torchvision', code)
        done = dlbook('run', env=env)
        assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].endswith('dlbook doctor')
        from dlbook.kit.cli import _IMPORTS
        failed = python('-c', _IMPORTS, cwd=tmp_path, env=env)
        assert failed.returncode and failed.stderr.startswith('torchvision is installed but does not work') and word in failed.stderr


def test_the_doctor_says_how_to_mend_it(monkeypatch):
    from dlbook.kit import cli
    for said, names in (('torchvision is installed but does not work (RuntimeError: nms)', 'torch torchvision'),
                        ('sklearn is installed but does not work (ImportError: x)', 'scikit-learn'),
                        ('fastai.vision.all is installed but does not work (ImportError: x)', 'fastai')):
        monkeypatch.setattr(cli, '_in_python', lambda code: (said, False))
        text, good = cli._imports()
        assert not good and text == f'{said}: {sys.executable} -m pip install --upgrade --force-reinstall {names}'


def test_ordinary_failures_do_not_send_anybody_to_the_doctor(book, dlbook):
    write_chapter(book, '01_bad', '1 / 0')
    assert 'doctor' not in dlbook('run').stderr


def test_ports_at_the_end_of_the_range(book, dlbook):
    write_chapter(book, '01_good', 'x = 1')
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 65535))
        said = one_line(dlbook('lab', 'mine', '--no-browser', '--port', '65535'), 1)
    assert 'no port from 65535 to 65535' in said and '--port 9999' in said


NOTEBOOK = textwrap.dedent('''
    from dlbook.kit.results import chapter, record
    from dlbook.kit.exercises import check
    chapter("01_neurons")
    print(record("a value", 1.0, low=0, high=2), record("another", 1.5, low=0, high=2))
    check("01.1", lambda: (-1, -1, 1.5))
''')


@posix
def test_a_chapter_goes_on_where_nothing_can_be_written(tmp_path):
    "Copied to a folder that takes no file, a chapter says so once and works. With DLBOOK_LEDGER set somebody waits for the results: then it fails."
    (tmp_path / 'dlbook-results.json').mkdir()  # in the way, also for root, whom rights do not stop
    (tmp_path / 'dlbook-progress.json').mkdir()
    done = python('-c', NOTEBOOK, cwd=tmp_path, env={'DLBOOK_LEDGER': '', 'DLBOOK_PROGRESS': ''})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('Results are not saved') == 1 and '1.0 1.5' in done.stdout and '01.1' in done.stdout
    assert 'work in a folder that you may write in' in done.stdout
    assert python('-c', NOTEBOOK, cwd=tmp_path, env={'DLBOOK_LEDGER': str(tmp_path / 'dlbook-results.json')}).returncode == 1


def test_a_chapter_goes_on_beside_a_ledger_that_was_damaged(tmp_path):
    (tmp_path / 'dlbook-results.json').write_text('{"half')
    done = python('-c', NOTEBOOK, cwd=tmp_path, env={'DLBOOK_LEDGER': '', 'DLBOOK_PROGRESS': ''})
    assert done.returncode == 0 and done.stdout.count('rename or delete that file') == 1
    assert (tmp_path / 'dlbook-results.json').read_text() == '{"half', 'the reader may want to look at it'


def test_a_chapter_that_was_copied_elsewhere_finds_all_it_needs(book, dlbook, tmp_path):
    "Neither data nor exercises lie beside the notebook; what it writes lies where it runs."
    folder = tmp_path / 'somewhere else'
    folder.mkdir()
    done = python('-c', NOTEBOOK + 'from dlbook.kit.data import digits, glyphs\nprint(len(digits().train.x), len(glyphs(36).train.x))', cwd=folder,
                  env={'DLBOOK_LEDGER': '', 'DLBOOK_PROGRESS': '', 'DLBOOK_CHAPTERS': ''})
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith('.')) == ['dlbook-progress.json', 'dlbook-results.json']
    shown = python('-m', 'dlbook', 'progress', folder, cwd=tmp_path, env={'DLBOOK_PROGRESS': ''}).stdout
    assert re.search(r'^1 of \d+ solved, says ', shown, re.MULTILINE), shown


def test_lab_opens_the_first_chapter_for_a_newcomer_and_what_was_open_for_others(book, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from dlbook.kit import cli
    write_chapter(book, '01_one', 'x = 1')
    write_chapter(book, '02_two', 'x = 1')
    started = []
    monkeypatch.setenv('DLBOOK_CHAPTERS', str(book))
    monkeypatch.setattr(cli.os, 'execv', lambda program, arguments: started.append(arguments))
    monkeypatch.setattr(cli.subprocess, 'call', lambda arguments: started.append(arguments) or 0)
    for name in ('JUPYTER_PREFER_ENV_PATH', 'JUPYTER_CONFIG_PATH'): monkeypatch.setenv(name, os.environ.get(name, ''))
    for _ in range(2): CliRunner().invoke(cli.app, ['lab', str(tmp_path / 'mine')])
    pages = [[part for part in arguments if part.startswith('--LabApp.default_url=')] for arguments in started]
    assert pages[0] == ['--LabApp.default_url=/lab/tree/01_one.ipynb'] and pages[-1] == []
