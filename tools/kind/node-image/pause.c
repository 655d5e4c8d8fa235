/* First process of a pod's sandbox: it holds the namespaces, reaps orphans, and ends when told to. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    for (;;) {
        int number = 0;
        sigwait(&signals, &number);
        if (number != SIGCHLD) return 0;
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    }
}
