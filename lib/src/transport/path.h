/* Unix sockets' paths: zmq+ipc's and unix's. A path that begins with '@' is an abstract name. */
#ifndef TRANSPORT_PATH_H
#define TRANSPORT_PATH_H

#include <rpcrew/url.h>

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

enum { PATH_MOST = sizeof(((struct sockaddr_un *)NULL)->sun_path) };

/* The one that a URL names: scheme:///path, or scheme://@name, which has an empty user by the grammar of
 * URLs. CREW_BAD_ARGUMENT. */
crew_status path_of_url(const crew_url *url, char path[PATH_MOST], crew_error *why);

/* Its address; returns the size, 0 if it is too long for one. */
socklen_t path_address(const char *path, struct sockaddr_un *address);

/* For who is to bind it: that there is nothing, or a socket that nobody serves. Whoever is about to leave it
 * is waited for, 500 ms at most. shown: the address, for words. CREW_BAD_ARGUMENT, CREW_SYSTEM. */
crew_status path_is_free(const char *path, const char *shown, crew_error *why);

/* The same, as it is now. */
crew_status path_look(const char *path, const char *shown, crew_error *why);

/* Keeps others who are about to bind or remove something in its directory waiting, if they ask: a socket that
 * is bound and does not listen yet looks like one that nobody serves. Returns what path_unlock takes. */
int path_lock(const char *path);
void path_unlock(int lock);

/* For who is to connect: that it is there, and may be written to. CREW_BAD_ARGUMENT, CREW_NO_SERVICE. */
crew_status path_is_there(const char *path, const char *shown, crew_error *why);

/* The inode of what is there; 0: nothing, or an abstract name. */
ino_t path_inode(const char *path);

/* Removes what is there if it is that inode. */
void path_remove(const char *path, ino_t inode);

#endif
