/* main.c — the program `coe`. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"

/* A thread that has no work left waits in a loop before it sleeps. libgomp's loop lasts many milliseconds, which is
 * what a parallel region then costs whenever another program wants the processor: 2000 small regions took 26 s instead
 * of 0.1 s on two busy cores. 1000 turns are the middle: the shipped model generates 1340 tokens/s on two idle cores
 * (10000 turns: 1450) and 860 beside two busy ones (10000 turns: 220). The runtime reads the variable before main, so
 * the program starts itself again with the short loop; where that fails it goes on as it is. */
static void wait_briefly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (!setenv("GOMP_SPINCOUNT", "1000", 1)) (void)execv("/proc/self/exe", argv);
}

/* A standard stream that the caller closed would give its number to the next file opened, a model being written, say,
 * and notes would go there. Opened the wrong way round, its use still fails. */
static void fill_closed_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0) (void)open("/dev/null", fd ? O_RDONLY : O_WRONLY);
}

int main(int argc, char **argv)
{
    fill_closed_streams();
    wait_briefly(argv);
    return cli_main(argc, argv);
}
