/* Tries to get out of a step, as its root. Each attempt that works is a line `could …`; the last
 * line counts the attempts. `escape FILE PID SOCKET` names what must be out of reach: a file, a
 * process and an abstract socket of the machine, outside of the step. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <net/if.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>

static const char *depth = "";
static const char *file, *name;
static pid_t outside;

static int count;

static void attempt(const char *what, const char *detail, int worked) {
    count++;
    if (worked) printf("could %s%s%s%s\n", depth, what, *detail ? " " : "", detail);
    fflush(stdout);
}

static void opening(const char *path, int flags, const char *what) {
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    attempt(what, path, fd >= 0);
    if (fd >= 0) close(fd);
}

/* Runs something in a process of its own, since it changes the process. */
static void apart(void (*act)(void)) {
    fflush(stdout);
    int ends[2];
    if (pipe(ends)) exit(3);
    pid_t pid = fork();
    if (pid == 0) {
        count = 0;
        act();
        if (write(ends[1], &count, sizeof count) != sizeof count) exit(3);
        fflush(stdout);
        _exit(0);
    }
    close(ends[1]);
    int more = 0;
    if (read(ends[0], &more, sizeof more) == sizeof more) count += more;
    else attempt("end the process that tried", "", 0), printf("an attempt died\n");
    close(ends[0]);
    waitpid(pid, NULL, 0);
}

static void files(void) {
    static const char *const writable[] = {
        "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/hostname",
        "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward", "/proc/mtrr",
        "/proc/acpi/wakeup", "/proc/scsi/scsi", "/proc/irq/default_smp_affinity",
        "/proc/bus/pci/00/00.0", "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/power/disk",
        "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/module/kernel/parameters/panic",
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.kill", "/sys/fs/cgroup/release_agent",
        "/sys/class/net/lo/mtu", "/sys/bus/pci/rescan", "/sys/firmware/efi/efivars",
        "/proc/1/mem", "/proc/1/exe",
    };
    for (size_t i = 0; i < sizeof writable / sizeof *writable; i++)
        opening(writable[i], O_WRONLY, "write");
    static const char *const readable[] = {
        "/dev/kmsg", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/sda", "/dev/vda", "/dev/nvme0n1",
        "/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/loop-control", "/dev/loop0", "/dev/mapper",
        "/dev/tty0", "/dev/console", "/dev/vsock", "/dev/vhost-vsock", "/dev/uinput", "/dev/input",
        "/dev/snd", "/dev/dri", "/dev/hugepages", "/dev/userfaultfd", "/proc/kmsg",
        "/proc/1/environ", "/proc/1/maps", "/proc/1/root/", "/proc/1/cwd/", "/proc/1/exe",
        "/proc/1/auxv", "/proc/1/ns/mnt", "/proc/1/ns/user", "/proc/1/ns/net",
        "/proc/1/ns/pid", "/proc/1/ns/cgroup", "/proc/1/task/1/root/",
    };
    for (size_t i = 0; i < sizeof readable / sizeof *readable; i++)
        opening(readable[i], O_RDONLY, "read");
    static const char *const payloads[][2] = { { "/proc/1/oom_score_adj", "-1000" },
        { "/proc/1/uid_map", "0 0 1" }, { "/proc/1/setgroups", "deny" }, { "/proc/1/comm", "x" } };
    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        int fd = open(payloads[i][0], O_WRONLY);
        attempt("change", payloads[i][0],
                fd >= 0 && write(fd, payloads[i][1], strlen(payloads[i][1])) > 0);
        if (fd >= 0) close(fd);
    }
    static const char *const folders[] = { "/proc/1/map_files", "/proc/1/task/1/map_files" };
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        DIR *folder = opendir(folders[i]);
        /* Past its two entries of dots. */
        attempt("list", folders[i], folder && readdir(folder) && readdir(folder) && readdir(folder));
        if (folder) closedir(folder);
    }
    static const char *const empty[] = { "/proc/1/stack", "/proc/kcore", "/proc/keys", "/proc/timer_list",
        "/proc/sched_debug", "/proc/latency_stats" };
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        char byte;
        int fd = open(empty[i], O_RDONLY);
        attempt("read", empty[i], fd >= 0 && read(fd, &byte, 1) == 1);
        if (fd >= 0) close(fd);
    }
    char path[64];
    for (int i = 0; i < 64; i++) {
        snprintf(path, sizeof path, "/proc/1/fd/%d", i);
        opening(path, O_RDONLY, "open");
        char target[256];
        attempt("read the link", path, readlink(path, target, sizeof target) >= 0);
    }
}

static void descriptors(void) {
    char text[16];
    for (int fd = 3; fd < 4096; fd++) {
        snprintf(text, sizeof text, "%d", fd);
        if (fcntl(fd, F_GETFD) >= 0) attempt("use the inherited descriptor", text, 1);
    }
    count++;
    /* What is inherited leads to no folder and no terminal. */
    for (int fd = 0; fd < 3; fd++) {
        struct stat stat;
        snprintf(text, sizeof text, "%d", fd);
        attempt("list", text, fstat(fd, &stat) == 0 && S_ISDIR(stat.st_mode));
        attempt("type on", text, isatty(fd));
        attempt("change folder through", text, fchdir(fd) == 0);
    }
    extern char **environ;
    for (char **variable = environ; *variable; variable++)
        if (strstr(*variable, "canary")) attempt("read the variable", *variable, 1);
    count++;
}

static int sees_outside(void) {
    struct stat stat;
    return lstat(file, &stat) == 0 || lstat(file + 1, &stat) == 0;
}

static void chroot_out(void) {
    int root = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/tmp/jail", 0755);
    if (chroot("/tmp/jail") == 0 && fchdir(root) == 0) {
        for (int i = 0; i < 64; i++) if (chdir("..")) break;
        if (chroot(".")) return;
    }
    attempt("leave by chroot to", file, sees_outside());
}

static void pivot_out(void) {
    if (unshare(CLONE_NEWNS)) return;
    mkdir("/tmp/new", 0755);
    if (mount("t", "/tmp/new", "tmpfs", 0, "")) return;
    mkdir("/tmp/new/old", 0755);
    if (syscall(SYS_pivot_root, "/tmp/new", "/tmp/new/old")) return;
    chdir("/old");
    for (int i = 0; i < 64; i++) if (chdir("..")) break;
    attempt("leave by pivot_root to", file, sees_outside());
    umount2("/old", MNT_DETACH);
    umount2("/", MNT_DETACH);
    attempt("leave by umount to", file, sees_outside());
}

static void root_mounts(void) {
    attempt("see", file, sees_outside());
    umount2("/", MNT_DETACH);
    attempt("unmount the root and see", file, sees_outside());
    mkdir("/tmp/at", 0755);
    attempt("bind", "/proc/1/root", mount("/proc/1/root", "/tmp/at", NULL, MS_BIND | MS_REC, NULL) == 0);
    attempt("bind", "/proc/1/cwd", mount("/proc/1/cwd", "/tmp/at", NULL, MS_BIND | MS_REC, NULL) == 0);
}

static void remounts(void) {
    static const char *const places[] = { "/proc/sys", "/proc/sysrq-trigger", "/proc/irq",
        "/proc/bus", "/proc/fs", "/sys", "/run/ocibuild" };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        attempt("remount", places[i], mount(NULL, places[i], NULL, MS_REMOUNT | MS_BIND, NULL) == 0);
        struct { unsigned long long set, clear, propagation, userns; } attributes = { 0, 1, 0, 0 };
        attempt("clear read-only of", places[i],
                syscall(SYS_mount_setattr, AT_FDCWD, places[i], 0, &attributes, sizeof attributes) == 0);
        int tree = syscall(SYS_open_tree, AT_FDCWD, places[i], 1 | O_CLOEXEC);
        attempt("copy and clear read-only of", places[i], tree >= 0
                && syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0);
        mkdir("/tmp/moved", 0755);
        attempt("move", places[i], mount(places[i], "/tmp/moved", NULL, MS_MOVE, NULL) == 0);
        attempt("unmount", places[i], umount2(places[i], MNT_DETACH) == 0);
    }
    attempt("unmount", "/proc", umount2("/proc", MNT_DETACH) == 0);
    attempt("unmount", "/proc/keys", umount2("/proc/keys", MNT_DETACH) == 0);
    attempt("unmount", "/dev", umount2("/dev", MNT_DETACH) == 0);
}

/* A file system of the kernel's own is harmless when it shows nothing that the mounts hide. */
static void new_mounts(void) {
    mkdir("/tmp/fs", 0755);
    static const char *const kinds[] = { "sysfs", "debugfs", "tracefs", "securityfs", "bpf",
        "configfs", "efivarfs", "pstore", "cgroup", "selinuxfs", "hugetlbfs", "devtmpfs", "ext4",
        "fusectl" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int done = mount("none", "/tmp/fs", kinds[i], 0, "") == 0;
        attempt("mount", kinds[i], done);
        if (done) umount2("/tmp/fs", MNT_DETACH);
    }
    if (mount("none", "/tmp/fs", "cgroup2", 0, "") == 0) {
        opening("/tmp/fs/cgroup.kill", O_WRONLY, "write");
        opening("/tmp/fs/cgroup.procs", O_WRONLY, "write");
        opening("/tmp/fs/cgroup.freeze", O_WRONLY, "write");
        opening("/tmp/fs/memory.max", O_WRONLY, "write");
        umount2("/tmp/fs", MNT_DETACH);
    }
    count++;
    if (mount("none", "/tmp/fs", "proc", 0, "") == 0) {
        opening("/tmp/fs/sysrq-trigger", O_WRONLY, "write");
        opening("/tmp/fs/sys/kernel/core_pattern", O_WRONLY, "write");
        opening("/tmp/fs/sys/vm/drop_caches", O_WRONLY, "write");
        opening("/tmp/fs/kcore", O_RDONLY, "read");
        umount2("/tmp/fs", MNT_DETACH);
    }
    count++;
}

static void new_mounts_apart(void) {
    if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC)) return;
    apart(new_mounts);
}

static void own_cgroup(void) {
    if (unshare(CLONE_NEWCGROUP)) { count++; return; }
    new_mounts();
}

/* Nodes may be made, as far as the step can tell, but lead to no device. */
static void devices(void) {
    static const unsigned numbers[][3] = { { S_IFBLK, 8, 0 }, { S_IFBLK, 254, 0 },
        { S_IFBLK, 259, 0 }, { S_IFBLK, 7, 0 }, { S_IFCHR, 1, 1 }, { S_IFCHR, 1, 11 },
        { S_IFCHR, 10, 200 }, { S_IFCHR, 4, 0 }, { S_IFCHR, 10, 229 } };
    static const char *const folders[] = { "/", "/tmp", "/dev", "/dev/shm", "/tmp/own" };
    mkdir("/tmp/own", 0755);
    mount("t", "/tmp/own", "tmpfs", 0, "");
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++)
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            char path[64];
            snprintf(path, sizeof path, "%s/node-%u-%u-%u", folders[f], numbers[i][0] == S_IFBLK,
                     numbers[i][1], numbers[i][2]);
            if (mknod(path, numbers[i][0] | 0666, makedev(numbers[i][1], numbers[i][2])) == 0) {
                /* With one id it is an empty file, which can be cut; a device can't. */
                if (truncate(path, 0) != 0)
                    opening(path, O_RDONLY, "read");
                unlink(path);
            }
            count++;
        }
}

static void processes(void) {
    attempt("trace process 1", "", ptrace(PTRACE_SEIZE, 1, 0, 0) == 0);
    char byte = 0;
    struct iovec here = { &byte, 1 }, there = { (void *)0x400000, 1 };
    errno = 0;
    process_vm_readv(1, &here, 1, &there, 1, 0);
    attempt("read the memory of process 1", "", errno != EPERM);
    errno = 0;
    process_vm_writev(1, &here, 1, &there, 1, 0);
    attempt("write the memory of process 1", "", errno != EPERM);
    int pidfd = syscall(SYS_pidfd_open, 1, 0);
    for (int fd = 0; pidfd >= 0 && fd < 64; fd++)
        attempt("take a descriptor of process 1", "", syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0);
    attempt("join the namespaces of process 1", "", pidfd >= 0 && setns(pidfd, CLONE_NEWUSER) == 0);
    attempt("join the mounts of process 1", "", pidfd >= 0 && setns(pidfd, CLONE_NEWNS) == 0);
    attempt("signal the test", "", kill(outside, 0) == 0);
    attempt("trace the test", "", ptrace(PTRACE_SEIZE, outside, 0, 0) == 0);
    attempt("stop process 1", "", kill(1, SIGSTOP) == 0 && ({
        char state[256] = "", *at; int fd; usleep(50000);
        fd = open("/proc/1/stat", O_RDONLY);
        if (fd >= 0) { if (read(fd, state, 255) < 0) {} close(fd); }
        at = strrchr(state, ')'); at && at[2] == 'T'; }));
    /* Nothing of the machine's has a number in here. */
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));)
        if (atoi(entry->d_name) > 20000) attempt("see the process", entry->d_name, 0);
    if (proc) closedir(proc);
}

static void calls(void) {
    char zeros[256] = { 0 };
    attempt("add_key", "", syscall(SYS_add_key, "user", "k", "v", 1, -3) >= 0);
    attempt("keyctl", "", syscall(SYS_keyctl, 0, -3, 1) >= 0);
    attempt("request_key", "", syscall(SYS_request_key, "user", "k", NULL, 0) >= 0 || errno == ENOKEY);
    attempt("io_uring_setup", "", syscall(SYS_io_uring_setup, 4, zeros) >= 0);
    attempt("bpf", "", syscall(SYS_bpf, 0, zeros, sizeof zeros) >= 0);
    attempt("userfaultfd", "", syscall(SYS_userfaultfd, 1) >= 0);
    attempt("perf_event_open", "", syscall(SYS_perf_event_open, zeros, 0, -1, -1, 0) >= 0 || errno != EPERM);
    attempt("kexec_load", "", syscall(SYS_kexec_load, 0, 0, NULL, 0) >= 0 || errno != EPERM);
    attempt("kexec_file_load", "", syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0) >= 0 || errno != EPERM);
    struct { unsigned bytes; int type; char data[128]; } handle = { 128, 0, { 0 } };
    int mount_id;
    syscall(SYS_name_to_handle_at, AT_FDCWD, "/etc", &handle, &mount_id, 0);
    int etc = open("/etc", O_RDONLY);
    attempt("open_by_handle_at", "", syscall(SYS_open_by_handle_at, etc, &handle, O_RDONLY) >= 0);
    attempt("init_module", "", syscall(SYS_init_module, zeros, sizeof zeros, "") >= 0 || (errno != EPERM && errno != ENOSYS));
    attempt("delete_module", "", syscall(SYS_delete_module, "none", 0) >= 0 || (errno != EPERM && errno != ENOSYS));
    attempt("swapon", "", syscall(SYS_swapon, "/tmp", 0) >= 0 || errno != EPERM);
    attempt("acct", "", syscall(SYS_acct, "/etc/passwd") >= 0 || (errno != EPERM && errno != ENOSYS));
    struct timeval now;
    gettimeofday(&now, NULL);
    attempt("settimeofday", "", settimeofday(&now, NULL) == 0);
    struct timespec time = { now.tv_sec, 0 };
    attempt("clock_settime", "", clock_settime(CLOCK_REALTIME, &time) == 0);
    attempt("syslog", "", syscall(SYS_syslog, 3, zeros, 255) >= 0);
    attempt("clear the log", "", syscall(SYS_syslog, 5, NULL, 0) >= 0);
    attempt("sethostname", "", sethostname("other", 5) == 0);
    attempt("setdomainname", "", setdomainname("other", 5) == 0);
    attempt("fanotify", "", syscall(SYS_fanotify_init, 4, 0) >= 0);
    attempt("reboot", "", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, NULL) == 0);
#ifdef SYS_iopl
    attempt("iopl", "", syscall(SYS_iopl, 3) == 0);
    attempt("ioperm", "", syscall(SYS_ioperm, 0x70, 2, 1) == 0);
#endif
    attempt("quotactl", "", syscall(SYS_quotactl, 0x800002 << 8, "/dev/vda", 0, zeros) == 0);
}

static void terminals(void) {
    char letter = 'x', path[32];
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), number = 0, unlock = 0;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) || ioctl(master, TIOCGPTN, &number)) {
        printf("no terminal could be made\n");
        return;
    }
    snprintf(path, sizeof path, "/dev/pts/%d", number);
    setsid();
    int slave = open(path, O_RDWR);
    ioctl(slave, TIOCSCTTY, 0);
    attempt("TIOCSTI", "", ioctl(slave, TIOCSTI, &letter) == 0);
    attempt("TIOCSTI with a high half", "", syscall(SYS_ioctl, slave, 0x100000000UL | TIOCSTI, &letter) == 0);
    char codes[32] = { 2 };
    errno = 0;
    attempt("TIOCLINUX", "", ioctl(slave, TIOCLINUX, codes) == 0 || errno != EPERM);
    int tty = open("/dev/tty", O_RDWR);
    if (tty >= 0) attempt("TIOCSTI", "/dev/tty", ioctl(tty, TIOCSTI, &letter) == 0);
}

static void network(void) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(address.sun_path + 1, name, strlen(name));
    attempt("connect to the abstract socket", name,
            connect(fd, (void *)&address, sizeof(sa_family_t) + 1 + strlen(name)) == 0);
    static const char *const machines[] = { "192.0.2.1", "10.0.0.1", "169.254.169.254", "8.8.8.8" };
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(53) };
        inet_pton(AF_INET, machines[i], &to.sin_addr);
        fd = socket(AF_INET, SOCK_DGRAM, 0);
        attempt("send to", machines[i], sendto(fd, "x", 1, 0, (void *)&to, sizeof to) >= 0);
        close(fd);
    }
    struct if_nameindex *devices = if_nameindex();
    for (struct if_nameindex *device = devices; device && device->if_index; device++)
        if (strcmp(device->if_name, "lo")) attempt("use the device", device->if_name, strcmp(device->if_name, "sit0") && strcmp(device->if_name, "tunl0") && strcmp(device->if_name, "ip6tnl0"));
    count++;
    /* The hypervisor's sockets know no network namespace. */
    attempt("make a socket of", "AF_VSOCK", socket(40, SOCK_STREAM, 0) >= 0);
    attempt("make a cgroup namespace", "", unshare(CLONE_NEWCGROUP) == 0);
}

static void all(void) {
    apart(files);
    apart(chroot_out);
    apart(pivot_out);
    apart(root_mounts);
    apart(remounts);
    apart(new_mounts);
    apart(new_mounts_apart);
    apart(own_cgroup);
    apart(devices);
    apart(processes);
    apart(calls);
    apart(terminals);
    apart(network);
}

/* Namespaces of its own within give a step nothing more. */
static void nested(void) {
    depth = "in a nested namespace ";
    uid_t uid = getuid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)) { count++; return; }
    char map[32];
    int fd = open("/proc/self/setgroups", O_WRONLY);
    if (fd >= 0) { if (write(fd, "deny", 4) < 0) {} close(fd); }
    static const char *const maps[] = { "/proc/self/uid_map", "/proc/self/gid_map" };
    for (int i = 0; i < 2; i++) {
        fd = open(maps[i], O_WRONLY);
        int length = snprintf(map, sizeof map, "0 %u 1", uid);
        if (fd < 0 || write(fd, map, length) != length) printf("cannot map ids\n");
        if (fd >= 0) close(fd);
    }
    apart(files);
    apart(chroot_out);
    apart(pivot_out);
    apart(root_mounts);
    apart(remounts);
    apart(new_mounts);
    apart(new_mounts_apart);
    apart(own_cgroup);
    apart(devices);
    apart(processes);
    /* The host name is its own in there, and so is not tried. */
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    file = argv[1];
    outside = atoi(argv[2]);
    name = argv[3];
    setvbuf(stdout, NULL, _IOLBF, 0);
    descriptors();
    apart(all);
    apart(nested);
    printf("tried %d\n", count);
    return 0;
}
