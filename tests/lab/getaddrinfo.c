/* Prints the addresses of a name, one a line, as any program of this C library gets them. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct addrinfo hints, *found, *one;
    char text[INET6_ADDRSTRLEN];
    int error;

    if (argc != 2)
        return 64;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    error = getaddrinfo(argv[1], "80", &hints, &found);
    if (error) {
        fprintf(stderr, "%s\n", gai_strerror(error));
        return error == EAI_NONAME ? 2 : error == EAI_AGAIN ? 3 : 1;
    }
    for (one = found; one; one = one->ai_next) {
        const void *address = one->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        puts(inet_ntop(one->ai_family, address, text, sizeof text));
    }
    freeaddrinfo(found);
    return 0;
}
