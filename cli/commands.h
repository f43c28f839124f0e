/* The commands of rpcrew, and what they share. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <rpcrew.h>

/* Exit status by outcome. */
enum {
    EXIT_OK = 0,
    EXIT_REMOTE_ERROR = 1,
    EXIT_USAGE = 2,
    EXIT_NO_SERVICE = 3,
    EXIT_TIME = 4, /* timed out, or expired unsent */
    EXIT_OVERLOADED = 5,
    EXIT_LOST = 6, /* disconnected, cancelled */
    EXIT_BAD_REPLY = 7,
    EXIT_LOCAL = 8 /* memory, the system */
};

struct cli {
    const char *url;
    crew_client *client; /* connected */
    char *const *words;  /* behind the URL */
    size_t count;
    bool raw, json, pretty;
};

typedef int cli_command(const struct cli *cli);

cli_command cli_call, cli_notify, cli_ping, cli_describe;

/* Prints why to standard error; the exit status that goes with it. */
int cli_fail(const crew_error *why);

#endif
