#!/usr/bin/env python3
"""What libapikey.so promises to whoever links it, read from the file itself.

usage: library_test.py LIBRARY READELF STRIP

Needs nothing but libc, exports apikey_* only, is small, is bound at load time (a lazy binding would be a lock and a
search on some request), and stays loaded after dlclose (threads may end later). Errors name what was found.
"""

import os
import subprocess
import sys
import tempfile

STRIPPED_BYTES_MAX = 100 * 1024
NEEDED = ['libc.so.6']
EXPORTED = [
    'apikey_address_parse',
    'apikey_close',
    'apikey_code_name',
    'apikey_describe',
    'apikey_open',
    'apikey_refresh',
    'apikey_result_text',
    'apikey_scopes_compile',
    'apikey_scopes_free',
    'apikey_status',
    'apikey_validate',
    'apikey_validate_many',
    'apikey_validate_request',
]


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def bracketed(line):
    return line[line.index('[') + 1:line.index(']')]


def dynamic_faults(readelf, library):
    """NEEDED, and the flags of the dynamic section."""
    lines = output(readelf, '--dynamic', '--wide', library).splitlines()
    needed = [bracketed(line) for line in lines if '(NEEDED)' in line]
    if needed != NEEDED:
        yield f'needs {needed}, not {NEEDED}'
    flags = ' '.join(line.split(')', 1)[1] for line in lines if '(FLAGS)' in line or '(FLAGS_1)' in line).split()
    for flag in ('BIND_NOW', 'NODELETE'):
        if flag not in flags:
            yield f'lacks the flag {flag}; has {flags}'
    if any('(TEXTREL)' in line for line in lines):
        yield 'has text relocations'


def symbol_faults(readelf, library):
    """The dynamic symbols that are defined here."""
    exported = []
    for line in output(readelf, '--dyn-syms', '--wide', library).splitlines():
        fields = line.split()  # Num: Value Size Type Bind Vis Ndx Name
        if len(fields) >= 8 and fields[0][:-1].isdigit() and fields[6] != 'UND':
            exported.append(fields[7].split('@')[0])
    if sorted(exported) != EXPORTED:
        yield f'exports {sorted(exported)}, not {EXPORTED}'


def size_faults(strip, library):
    with tempfile.TemporaryDirectory() as folder:
        stripped = os.path.join(folder, 'stripped.so')
        subprocess.run([strip, '-o', stripped, library], check=True)
        size = os.path.getsize(stripped)
    print(f'{size} bytes stripped, at most {STRIPPED_BYTES_MAX} are allowed')
    if size > STRIPPED_BYTES_MAX:
        yield f'is {size} bytes stripped, more than {STRIPPED_BYTES_MAX}'


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    library, readelf, strip = sys.argv[1:]
    faults = [
        *dynamic_faults(readelf, library),
        *symbol_faults(readelf, library),
        *size_faults(strip, library),
    ]
    for fault in faults:
        print(f'{library}: {fault}', file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == '__main__':
    main()
