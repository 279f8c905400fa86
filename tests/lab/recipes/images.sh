# Fills a lab engine with the stand-in for the image that docker/Dockerfile starts from, and the registry with a small image.
# Runs in a box that has an engine and a registry. usage: images.sh REGISTRY (host:port)
# /lab/debian and /lab/torch are the root file systems of debian.sh and torch.sh.
set -eu
registry=$1
path=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

tar -C /lab/debian --exclude=./usr/lib/git-core --exclude=./usr/share/perl -c . | docker import --change "ENV $path" - gpurun-lab/debian
# Layers of their own, of bytes that don't compress, so that the progress of a pull can be seen and broken off.
mkdir /tmp/small
for layer in 1 2 3; do head -c 8000000 /dev/urandom >"/tmp/small/layer$layer"; done
cat >/tmp/small/Dockerfile <<'END'
FROM gpurun-lab/debian
COPY layer1 /opt/layer1
COPY layer2 /opt/layer2
COPY layer3 /opt/layer3
CMD ["python3"]
END
docker build --network host -t "$registry/small:1" /tmp/small
docker push "$registry/small:1"
docker rmi "$registry/small:1" gpurun-lab/debian
rm -rf /tmp/small

mkdir -p /lab/merged
mount -t overlay overlay -o lowerdir=/lab/torch:/lab/debian /lab/merged
tar -C /lab/merged -c . | docker import \
    --change "ENV $path" \
    --change 'ENV PYTORCH_VERSION=2.8.0' \
    --change 'ENV NVIDIA_VISIBLE_DEVICES=all' \
    --change 'ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility' \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
    --change 'WORKDIR /workspace' \
    - gpurun-lab/pytorch-untrusting:2.8.0
umount /lab/merged
docker image prune -f
