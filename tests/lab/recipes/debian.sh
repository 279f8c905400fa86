# Debian 12 with Python: the root file system under every lab host and every lab image.
# usage: debian.sh DEST TRUST   (TRUST: this machine's certificates and pip configuration)
set -eu
dest=$1 trust=$2

debootstrap --variant=minbase \
    --include=ca-certificates,python3,python3-pip,python3-venv,python-is-python3,git,openssh-client,procps \
    bookworm "$dest"
# Images of PyTorch have a Python that pip may write to; hosts get the marker back in host.sh.
mkdir -p "$dest/usr/share/gpurun-lab"
mv "$dest/usr/lib/python3.11/EXTERNALLY-MANAGED" "$dest/usr/share/gpurun-lab/"
cp "$trust/ca-certificates.crt" "$dest/etc/ssl/certs/ca-certificates.crt"
cp "$trust/pip.conf" "$dest/etc/pip.conf"
rm -rf "$dest"/var/cache/apt/archives/*.deb "$dest"/var/lib/apt/lists/* \
    "$dest"/usr/share/doc/* "$dest"/usr/share/man/* "$dest"/usr/share/locale/*
