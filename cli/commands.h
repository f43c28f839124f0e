/* The commands of rpcrew, and what they share. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <rpcrew.h>

#include <stdio.h>
#include <string.h>

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
    crew_call_options call; /* the time is the client's: */
    unsigned timeout_ms;
    unsigned concurrency; /* batch, bench: calls at a time */
    double duration_s;    /* bench */
    const char *summary;  /* batch: the file for the figures */
    bool raw, json, pretty;
    bool bytes;        /* @FILE and - are */
    bool bytes_result; /* is written as it is */
};

typedef int cli_command(const struct cli *cli);

cli_command cli_call, cli_notify, cli_batch, cli_bench, cli_ping, cli_probe, cli_describe;

/* The params of the call that the words are: a method and what follows it. */
CREW_NODISCARD crew_status cli_read_call(const struct cli *cli, crew_arena *arena, const crew_value **params,
                                         crew_error *why);

/* A text of a peer's, in which nothing but the ends of lines, if they are wanted, controls the terminal:
 * other characters of that kind are shown as JSON has them. */
void cli_print_safely(crew_string text, bool lines, FILE *file);

/* Prints why to standard error; the exit status that goes with it. */
int cli_fail(const crew_error *why);

#endif
