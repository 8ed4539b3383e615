// Asks for and changes owners under signals, from many threads and from many processes, and says
// how often an answer was wrong or a call broke off.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

static int wrong, failed, alarms;

static void once(const char *path, unsigned uid, unsigned gid) {
    struct stat seen;
    if (chown(path, uid, gid) || stat(path, &seen)) {
        __atomic_add_fetch(&failed, 1, __ATOMIC_RELAXED);
        fprintf(stderr, "%s: %d\n", path, errno);
    } else if (seen.st_uid != uid || seen.st_gid != gid) {
        __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
    }
}

static void new_file(const char *path) { close(open(path, O_CREAT | O_WRONLY, 0644)); }

static void on_alarm(int signal) { alarms++; }

static void under_signals(void) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, 0);
    new_file("signals");
    setitimer(ITIMER_REAL, &every, 0);
    for (int i = 0; i < 20000; i++) once("signals", i % 1000, i % 77);
    setitimer(ITIMER_REAL, &never, 0);
}

static void *thread(void *number) {
    char path[32];
    sprintf(path, "thread%ld", (long)number);
    new_file(path);
    for (int i = 0; i < 300; i++) once(path, (long)number, i);
    return 0;
}

int main(void) {
    under_signals();
    pthread_t threads[64];
    for (long i = 0; i < 64; i++) pthread_create(&threads[i], 0, thread, (void *)i);
    for (int i = 0; i < 64; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < 10000; i++) {
        if (fork() == 0) {
            char path[32];
            sprintf(path, "process%d", i % 500);
            new_file(path);
            // Who it is it must not have from another process.
            if (setresuid(0, i % 500, 0) || geteuid() != i % 500) wrong++;
            if (setresuid(0, 0, 0)) failed++;
            once(path, i % 500, 7);
            _exit(wrong ? 1 : failed ? 2 : 0);
        }
        // Some at a time.
        if (i % 8 == 7 || i == 9999) {
            int status;
            while (wait(&status) > 0) {
                if (status) *(WEXITSTATUS(status) == 1 ? &wrong : &failed) += 1;
            }
        }
    }
    printf("wrong %d, failed %d, %s\n", wrong, failed, alarms > 100 ? "under signals" : "no signals");
    return 0;
}
