/* A service that answers with its name, for TCP and UDP, IPv4 and IPv6, in one static program.
 *
 *     answers NAME PORT LINGER
 *
 * TCP: for each '?' the line NAME; any other octet is taken and not answered, so that a client can
 * wait. UDP: the datagram, a space, NAME. At SIGTERM it goes on for LINGER milliseconds, then ends;
 * with a negative LINGER it ignores SIGTERM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int bound(int kind, int port) {
    int fd = socket(AF_INET6, kind | SOCK_NONBLOCK, 0), on = 1, off = 0;
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any)) {
        perror("bind");
        exit(1);
    }
    return fd;
}

static void watch(int poll, int fd) {
    struct epoll_event want = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &want);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    char line[128];
    int length = snprintf(line, sizeof line, " %s\n", argv[1]);
    int tcp = bound(SOCK_STREAM, atoi(argv[2])), udp = bound(SOCK_DGRAM, atoi(argv[2]));
    int linger = atoi(argv[3]), poll = epoll_create1(0);
    int end = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int on = 1;
    setsockopt(udp, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    signal(SIGPIPE, SIG_IGN);
    int told = signalfd(-1, &term, SFD_NONBLOCK);
    if (listen(tcp, 512) || poll < 0 || end < 0 || told < 0) return 1;
    watch(poll, tcp);
    watch(poll, udp);
    watch(poll, told);
    watch(poll, end);
    for (;;) {
        struct epoll_event ready[64];
        int count = epoll_wait(poll, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            char said[512];
            if (fd == end) {
                return 0;
            } else if (fd == told) {
                struct signalfd_siginfo info;
                if (read(told, &info, sizeof info) < 0 || linger < 0) continue;
                struct itimerspec in = {.it_value = {.tv_sec = linger / 1000,
                                                     .tv_nsec = linger % 1000 * 1000000 + 1}};
                timerfd_settime(end, 0, &in, NULL);
            } else if (fd == tcp) {
                int peer;
                while ((peer = accept4(tcp, NULL, NULL, SOCK_NONBLOCK)) >= 0) watch(poll, peer);
            } else if (fd == udp) {
                struct sockaddr_in6 from;
                char about[128];
                struct iovec data = {.iov_base = said, .iov_len = 256};
                struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from,
                                         .msg_iov = &data, .msg_iovlen = 1,
                                         .msg_control = about, .msg_controllen = sizeof about};
                ssize_t got = recvmsg(udp, &message, 0);
                if (got < 0) continue;
                memcpy(said + got, line, (size_t)length);
                data.iov_len = (size_t)(got + length);
                /* What came along says where it was sent to; from there goes the answer. */
                struct cmsghdr *info = CMSG_FIRSTHDR(&message);
                if (info) ((struct in6_pktinfo *)CMSG_DATA(info))->ipi6_ifindex = 0;
                sendmsg(udp, &message, 0);
            } else {
                ssize_t got = read(fd, said, sizeof said);
                if (got == 0 || (got < 0 && errno != EAGAIN)) close(fd);
                for (ssize_t n = 0; n < got; n++)
                    if (said[n] == '?' && write(fd, line + 1, (size_t)length - 1) < 0) break;
            }
        }
    }
}
