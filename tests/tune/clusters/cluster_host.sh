#!/usr/bin/env bash
# The first process of a host, which Ray takes for a machine of its own, with a private /tmp, /dev/shm, /run and home
# over those of the real machine, the shared folder under /mnt/sweeps, and sshd.
# Arguments: name, its address with prefix, gateway, home, shared folder, folder of installed packages, Python, folder of keys.
set -euo pipefail
name=$1 address=$2 gateway=$3 home=$4 shared=$5 packages=$6 python=$7 keys=$8

mount -t tmpfs tmpfs /mnt
mkdir /mnt/sweeps /mnt/packages /mnt/keys
mount --bind "$shared" /mnt/sweeps
mount --bind "$packages" /mnt/packages
mount -o remount,bind,ro /mnt/packages
mount --bind "$keys" /mnt/keys
for folder in /run /tmp /dev/shm; do mount -t tmpfs tmpfs "$folder"; done
mkdir /run/sshd /run/upper /run/work
mount -t overlay overlay -o "lowerdir=$home,upperdir=/run/upper,workdir=/run/work" "$home"
# Ray on the real machine may have left a token there, which this host must not use.
mkdir -p "$home/.ray"
mount -t tmpfs tmpfs "$home/.ray"

# What installing for ten minutes would leave on a real host: the dependencies, but not the project.
venv=$home/two-stage-sigma-vae/.venv
"$python" -m venv --without-pip "$venv"
echo /mnt/packages > "$(echo "$venv"/lib/python3.*/site-packages)/dependencies.pth"
printf '#!%s\nimport sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n' "$venv/bin/python" > "$venv/bin/ray"
chmod +x "$venv/bin/ray"
# setuptools is among them, and there is no network to fetch another one for building.
mkdir -p "$home/.config/pip"
printf '[install]\nno-build-isolation = false\n' > "$home/.config/pip/pip.conf"
# Ray gives its workers niceness 15; on a machine whose cores do other work too they would hardly ever run.
echo 'export RAY_worker_niceness=0' >> "$home/.bashrc"

hostname "$name"
ip link set lo up
read -r _  # a line comes once the network is connected
ip address add "$address" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
exec /usr/sbin/sshd -D -e -f /dev/null -h /mnt/keys/host -o AuthorizedKeysFile=/mnt/keys/login.pub -o PermitRootLogin=yes \
  -o UsePAM=no -o StrictModes=no -o MaxSessions=100 -o MaxStartups=100
