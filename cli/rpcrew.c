/* rpcrew: calls services from a shell. */
#include "commands.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
    const char *name, *words, *help;
    cli_command *run;
    bool many; /* calls, so that it pays to prepare for them */
} commands[] = {
    { "call", "URL METHOD [ARG... | name=value...]", "calls a method and prints its result", cli_call },
    { "notify", "URL METHOD [ARG... | name=value...]", "calls one-way: no answer is waited for", cli_notify },
    { "batch", "URL [FILE]", "a call for each line {\"method\":...,\"params\":...}", cli_batch, true },
    { "bench", "URL METHOD [ARG...]", "calls for a while; prints calls/s and latencies", cli_bench, true },
    { "describe", "URL", "shows the methods of a service", cli_describe },
    { "ping", "URL", "sees whether somebody answers, and how fast", cli_ping },
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *file)
{
    (void)fprintf(file, "usage: rpcrew COMMAND [options] URL ...\n\ncommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        (void)fprintf(file, "  rpcrew %-8s %-36s %s\n", commands[i].name, commands[i].words,
                      commands[i].help);
    (void)fprintf(
        file,
        "\nAn ARG or value is JSON (42, true, '[1,2]', '\"text\"'), or else a string; @FILE is "
        "what is in the file,\n"
        "- what comes on standard input. A string with = in it goes as JSON: '\"a=b\"'.\n"
        "Options may stand anywhere; an ARG that begins with a dash and is no number goes behind --.\n"
        "\noptions:\n"
        "  -t, --timeout SECONDS   how long a call may take; 30, fractions allowed\n"
        "  -p, --protocol NAME     jsonrpc (the default), jsonrpc1, msgpack\n"
        "  -v, --verbose           shows on standard error what goes over the wire\n"
        "  -r, --raw               prints a string without quotes, and bytes as they are, not as hex\n"
        "  -j, --json              describe: the whole OpenRPC document; bench: figures as JSON\n"
        "  -b, --bytes             @FILE and - are bytes (base64 in JSON), also if they are text: so it is\n"
        "                          with msgpack\n"
        "      --text              @FILE and - are text, also with msgpack\n"
        "  -i, --idempotent        may be sent again when the connection is lost\n"
        "      --retry             tries again while nobody serves, or is overloaded\n"
        "  -c, --concurrency N     batch, bench: calls at a time; 64\n"
        "  -d, --duration SECONDS  bench: how long; 10\n"
        "  -s, --summary FILE      batch: writes the figures there, as JSON\n"
        "      --pretty, --compact indented (the default on a terminal), or one line (when piped)\n"
        "  -h, --help              shows this\n"
        "      --version           shows the version\n"
        "\nexit status: 0 done, 1 the service answered with an error, 2 bad usage, 3 nothing "
        "serves there, 4 no\n"
        "answer in time, 5 overloaded, 6 connection lost, 7 the answer broke the protocol, 8 no "
        "memory and the like\n");
}

static void show_message(void *context, const crew_trace *trace)
{
    const crew_client_options *client = context;
    const char *type = crew_answer_type(*trace->content_type ? trace->content_type : NULL, trace->bytes);
    if (!*trace->content_type && client->protocol) /* ZeroMQ tells none */
        type = strcmp(client->protocol, "msgpack") == 0 ? "application/msgpack" : "application/json";
    bool text = type && strcmp(type, "application/json") == 0;
    flockfile(stderr);
    (void)fputs(trace->incoming ? "< " : "> ", stderr);
    for (size_t i = 0; i < trace->bytes.size; i++) {
        unsigned char c = (unsigned char)trace->bytes.data[i];
        bool plain = c >= ' ' && c < 0x7f && c != '\\';
        if (plain || (text && (c >= 0x80 || c == '\\' || c == '\n' || c == '\t')))
            (void)fputc(c, stderr);
        else
            (void)fprintf(stderr, "\\x%02x", c);
    }
    (void)fputc('\n', stderr);
    funlockfile(stderr);
}

struct settings {
    struct cli cli;
    bool text; /* of @FILE and -, whatever the protocol */
    crew_client_options client;
};

static bool read_seconds(const char *option, const char *text, double *seconds)
{
    char *end;
    errno = 0;
    *seconds = strtod(text, &end);
    if (end != text && !*end && !errno && *seconds >= 0.001 && *seconds <= 1e6)
        return true;
    char shown[200];
    fprintf(stderr, "rpcrew: --%s %s: wants seconds, such as 0.5\n", option,
            crew_redact(text, shown, sizeof shown));
    return false;
}

static bool read_concurrency(const char *text, unsigned *concurrency)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    *concurrency = (unsigned)number;
    if (end != text && !*end && !errno && *text != '-' && number >= 1 && number <= 65536)
        return true;
    char shown[200];
    fprintf(stderr, "rpcrew: --concurrency %s: wants a number from 1 to 65536\n",
            crew_redact(text, shown, sizeof shown));
    return false;
}

enum { OPTION_PRETTY = 256, OPTION_COMPACT, OPTION_VERSION, OPTION_RETRY, OPTION_TEXT };

/* Words like -5 are no options: a mark before them keeps getopt off. They are the caller's to unmark. */
static const char mark = '\1';

/* The option that getopt did not like: a letter may stand in the middle of a word. */
static const char *wrong_option(const char *word, char *shown, size_t room)
{
    bool letter = optopt > ' ' && optopt < 127;
    (void)snprintf(shown, room, "-%c", optopt);
    return letter && strncmp(word, "--", 2) != 0 ? shown : crew_redact(word, shown, room);
}

/* -1 to go on, else the exit status. */
static int read_options(struct settings *s, int argc, char **argv, bool anywhere)
{
    double seconds;
    char shown[200];
    static const struct option options[] = {
        { "timeout", required_argument, NULL, 't' },
        { "protocol", required_argument, NULL, 'p' },
        { "verbose", no_argument, NULL, 'v' },
        { "raw", no_argument, NULL, 'r' },
        { "json", no_argument, NULL, 'j' },
        { "bytes", no_argument, NULL, 'b' },
        { "text", no_argument, NULL, OPTION_TEXT },
        { "idempotent", no_argument, NULL, 'i' },
        { "retry", no_argument, NULL, OPTION_RETRY },
        { "concurrency", required_argument, NULL, 'c' },
        { "duration", required_argument, NULL, 'd' },
        { "summary", required_argument, NULL, 's' },
        { "help", no_argument, NULL, 'h' },
        { "pretty", no_argument, NULL, OPTION_PRETTY },
        { "compact", no_argument, NULL, OPTION_COMPACT },
        { "version", no_argument, NULL, OPTION_VERSION },
        { 0 },
    };
    const char *letters = anywhere ? ":t:p:vrjbic:d:s:h" : "+:t:p:vrjbic:d:s:h";
    for (int chosen; (chosen = getopt_long(argc, argv, letters, options, NULL)) != -1;) {
        const char *argument = optarg ? optarg : "";
        argument += *argument == mark;
        switch (chosen) {
        case 't':
            if (!read_seconds("timeout", argument, &seconds))
                return EXIT_USAGE;
            s->client.timeout_ms = (unsigned)(seconds * 1000 + 0.5);
            break;
        case 'd':
            if (!read_seconds("duration", argument, &s->cli.duration_s))
                return EXIT_USAGE;
            break;
        case 'c':
            if (!read_concurrency(argument, &s->cli.concurrency))
                return EXIT_USAGE;
            break;
        case 'b': s->cli.bytes = true; break;
        case OPTION_TEXT: s->text = true; break;
        case 'i': s->cli.call.idempotent = true; break;
        case 's': s->cli.summary = argument; break;
        case OPTION_RETRY: s->cli.call.retry = CREW_RETRY_NO_SERVICE | CREW_RETRY_OVERLOADED; break;
        case 'p': s->client.protocol = argument; break;
        case 'v':
            s->client.trace = show_message;
            s->client.trace_context = &s->client;
            break;
        case 'r': s->cli.raw = true; break;
        case 'j': s->cli.json = true; break;
        case 'h': print_help(stdout); return EXIT_OK;
        case OPTION_PRETTY: s->cli.pretty = true; break;
        case OPTION_COMPACT: s->cli.pretty = false; break;
        case OPTION_VERSION: puts("rpcrew 0.1.0"); return EXIT_OK;
        default:
            fprintf(stderr, "rpcrew: '%s' %s\nrpcrew --help shows how\n",
                    wrong_option(argv[optind - 1], shown, sizeof shown),
                    chosen == ':' ? "requires an argument" : "is not an option");
            return EXIT_USAGE;
        }
    }
    return -1;
}

static int find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return i;
    return -1;
}

static int run(int command, struct settings *s, int argc, char **argv)
{
    crew_error why;
    if (optind >= argc) {
        fprintf(stderr, "rpcrew: %s wants a URL, such as zmq+tcp://localhost:5555\n", commands[command].name);
        return EXIT_USAGE;
    }
    s->cli.url = argv[optind];
    s->cli.words = argv + optind + 1;
    s->cli.count = (size_t)(argc - optind - 1);
    s->client.brief = !commands[command].many;
    if (s->client.protocol && strcmp(s->client.protocol, "msgpack") == 0)
        s->cli.bytes = true; /* it has a type for them */
    if (s->text)
        s->cli.bytes = false;
    if (crew_client_new(&s->cli.client, s->cli.url, &s->client, &why) != CREW_OK)
        return cli_fail(&why);
    int code = commands[command].run(&s->cli);
    crew_client_free(s->cli.client);
    return code;
}

static bool mark_numbers(int argc, char **argv)
{
    bool good = true;
    for (int i = 1; i < argc && good && strcmp(argv[i], "--") != 0; i++) {
        const char *digits = argv[i] + (argv[i][0] == '-') + (argv[i][0] == '-' && argv[i][1] == '.');
        if (argv[i][0] != '-' || !isdigit((unsigned char)*digits))
            continue;
        char *marked = malloc(strlen(argv[i]) + 2); /* as long as the program */
        good = marked != NULL;
        if (good) {
            marked[0] = mark;
            memcpy(marked + 1, argv[i], strlen(argv[i]) + 1);
            argv[i] = marked;
        }
    }
    return good;
}

static void unmark_numbers(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        argv[i] += argv[i][0] == mark;
}

/* Options may stand before the command, too. */
int main(int argc, char **argv)
{
    struct settings settings = { .cli = { .concurrency = 64, .duration_s = 10 } };
    char shown[200];
    opterr = 0; /* getopt would show what should not be seen */
    settings.cli.pretty = isatty(STDOUT_FILENO) != 0;
    int code = read_options(&settings, argc, argv, false);
    if (code >= 0)
        return code;
    int command = optind < argc ? find_command(argv[optind]) : -1;
    if (command < 0) {
        if (optind < argc)
            fprintf(stderr, "rpcrew: no command '%s'\n", crew_redact(argv[optind], shown, sizeof shown));
        print_help(stderr);
        return EXIT_USAGE;
    }
    argc -= optind;
    argv += optind;
    optind = 0; /* getopt starts over */
    code = mark_numbers(argc, argv) ? read_options(&settings, argc, argv, true) : EXIT_LOCAL;
    unmark_numbers(argc, argv);
    if (code < 0)
        code = run(command, &settings, argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "rpcrew: writing the output: %s\n", strerror(errno));
        return EXIT_LOCAL;
    }
    return code;
}
