"""The script in a packed file that brings a snapshot back where there is no memkeep."""

TEXT = r"""#!/bin/sh
# Brings back the snapshot that lies beside this script. Needs sh, tar, zstd and sha256sum; not memkeep.
#
#     zstd -dc FILE.tar.zst | tar -xpf -        (first `age -d FILE.tar.zst.age |` instead, when it is encrypted)
#     sh memkeep-*/restore.sh TARGET            TARGET must not exist, or be an empty folder
#
# Every file is compared with SHA256SUMS before and after. What the files are stands in MANIFEST.json.
set -eu

fail() {
    echo "restore.sh: $1" >&2
    exit 1
}

[ $# -eq 1 ] && [ -n "$1" ] || fail "usage: sh restore.sh TARGET"
case $1 in
/*) target=$1 ;;
*) target=$PWD/$1 ;;
esac
case $0 in
*/*) cd "${0%/*}/" ;;
esac
here=$(pwd -P)
for name in MANIFEST.json SHA256SUMS files; do
    [ -e "$name" ] || fail "$here has no $name: unpack the whole archive first"
done
if [ -h "$target" ] || { [ -e "$target" ] && [ ! -d "$target" ]; }; then
    fail "$target exists and is no folder. Nothing was changed."
fi
if [ -d "$target" ] && [ -n "$(ls -A "$target")" ]; then
    fail "$target is not empty. Nothing was changed."
fi

check() {
    said=$(sha256sum -c "$1" 2>&1) && return
    printf '%s\n' "$said" | grep -v ': OK$' >&2
    return 1
}

check SHA256SUMS || fail "what was unpacked is not what was packed. Nothing was changed."
listed=$(wc -l <SHA256SUMS)
found=$(find . -type f -exec printf 'x\n' \; | wc -l)
[ "$found" -eq $((listed + 1)) ] || fail "there are files here that SHA256SUMS does not name. Nothing was changed."

parent=$(dirname "$target")
mkdir -p "$parent"
new=$parent/.memkeep-restore.$$
mkdir -m 700 "$new"
trap 'chmod -R u+rwx "$new" 2>/dev/null; rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM

cp -RPp files "$new/files"
sed -n 's|^\(\\\{0,1\}[0-9a-f]\{64\}  \)files/|\1|p' SHA256SUMS >"$new/SHA256SUMS"
if [ -s "$new/SHA256SUMS" ]; then
    (cd "$new/files" && check ../SHA256SUMS) || fail "what was written differs. Check the disk."
fi
[ ! -d "$target" ] || rmdir "$target"
mv "$new/files" "$target"
sync
echo "Restored to $target."
"""
