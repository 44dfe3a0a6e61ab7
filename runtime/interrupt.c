/* Ctrl-C, SIGTERM and a terminal that is closed.
 *
 * The first signal sets a flag, and whatever is long asks for it: between steps, batches, kernels
 * and pictures. So a run ends where its files are whole, saves what is worth it and exits with 130.
 * The second signal ends the program at once. The flag is the only variable of the program at file
 * level: a handler can reach no other.
 */
#include "commands.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t wanted, on_terminal;

static void on_signal(int number)
{
    (void)number;
    static const char first[] = "\r\033[Kstopping; Ctrl-C again exits at once\n", again[] = "\n";
    const char *text = wanted ? again : first;
    ssize_t ignored = on_terminal ? write(STDERR_FILENO, text, strlen(text)) : 0;
    (void)ignored;
    if (wanted)
        _exit(EXIT_INTERRUPTED);
    wanted = 1;
}

void interrupt_catch(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART }, before;
    on_terminal = isatty(STDERR_FILENO) != 0;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup */
        sigaction(SIGHUP, &action, NULL);
}

bool interrupted(void)
{
    return wanted != 0;
}
