"""Builds dlbook from settings.ini, which holds all of its metadata."""
import json
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(ROOT / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']


class BuildWithChapters(build_py):
    "Puts the chapters, without outputs, into the wheel as `dlbook/chapters/`."

    def run(self):
        super().run()
        if self.editable_mode: return  # an editable install reads nbs/ itself
        out = Path(self.build_lib) / cfg['lib_name'] / 'chapters'
        out.mkdir(parents=True, exist_ok=True)
        for source in sorted((ROOT / cfg['nbs_path']).glob('[0-9][0-9]_*.ipynb')):
            nb = json.loads(source.read_text(encoding='utf-8'))
            for cell in nb['cells']:
                if cell['cell_type'] == 'code': cell.update(outputs=[], execution_count=None)
            (out / source.name).write_text(json.dumps(nb, ensure_ascii=False, indent=1) + '\n', encoding='utf-8')
        for name in ('references.bib', 'results.json'):
            self.copy_file(str(ROOT / cfg['nbs_path'] / name), str(out / name))


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    keywords=cfg['keywords'],
    classifiers=[
        'Development Status :: 3 - Alpha', 'Intended Audience :: Education', 'Framework :: Jupyter',
        'Natural Language :: English', 'Topic :: Scientific/Engineering :: Artificial Intelligence',
        *(f'Programming Language :: Python :: {v}' for v in ('3.10', '3.11', '3.12', '3.13')),
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=['dlbook', 'dlbook.*']),
    include_package_data=True,
    install_requires=cfg['requirements'].split(),
    extras_require={'dev': cfg['dev_requirements'].split(), 'bench': cfg['bench_requirements'].split()},
    entry_points={'console_scripts': cfg['console_scripts'].split()},
    cmdclass={'build_py': BuildWithChapters},
    zip_safe=False,
)
