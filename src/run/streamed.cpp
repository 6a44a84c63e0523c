#include "run/streamed.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "core/files/dir_handle.h"
#include "core/json.h"
#include "core/json_text.h"
#include "run/fetched.h"

namespace pennyweight {

namespace fs = std::filesystem;

namespace {

constexpr const char* kHub = "hub";
constexpr size_t kLongestAnswer = size_t{64} << 10;
constexpr int kPatience = 200;  // milliseconds between two looks for a stop

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::io, kHub, what);
}

class SocketProvider : public ShardProvider {
 public:
  SocketProvider(
      std::string model,
      const std::string& path,
      ProgressFn progress)
      : model_(std::move(model)),
        progress_(std::move(progress)),
        socket_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    ::fcntl(socket_.get(), F_SETFD, FD_CLOEXEC);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
      fail("the path of the socket is too long: " + one_line(path, 200));
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    if (!socket_ ||
        ::connect(
            socket_.get(),
            reinterpret_cast<const sockaddr*>(&address),
            sizeof(address)) != 0) {
      throw io_error(kHub, "can't reach who fetches by", path, errno);
    }
  }

  fs::path fetch(const std::string& file) override {
    file_ = file;
    return ask({{"fetch", file}}).string("path");
  }

  void release(const std::string& file) override {
    ask({{"release", file}});
  }

 private:
  JsonView ask(const Json& request) {
    send(to_text(request) + "\n");
    answer_ = parse_json(receive(), "the answer of who fetches");
    JsonView answer(answer_, "the answer of who fetches");
    if (answer.has("code")) {
      throw Error(
          code_named(answer.string("code")),
          kHub,
          model_ + ": " + one_line(answer.string("message"), 600));
    }
    return answer;
  }

  void send(const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const auto sent = ::send(
          socket_.get(), text.data() + at, text.size() - at, MSG_NOSIGNAL);
      if (sent < 0 && errno != EINTR) {
        fail(model_ + ": who fetches its files has gone; run again");
      }
      at += sent > 0 ? static_cast<size_t>(sent) : 0;
    }
  }

  std::string receive() {
    std::string line;
    int64_t looks = 0;
    while (!line.ends_with('\n')) {
      pollfd waiting{socket_.get(), POLLIN, 0};
      if (::poll(&waiting, 1, kPatience) <= 0) {
        ++looks;
        const int64_t seconds = 1 + looks * kPatience / 1000;
        report(progress_, {kHub, seconds, 0, "s", "waiting for " + file_});
        continue;
      }
      char text[4096];
      const auto count = ::recv(socket_.get(), text, sizeof(text), 0);
      if (count == 0 || (count < 0 && errno != EINTR) ||
          line.size() > kLongestAnswer) {
        fail(model_ + ": who fetches its files has gone; run again");
      }
      line.append(text, count > 0 ? static_cast<size_t>(count) : 0);
    }
    return line;
  }

  std::string model_;
  ProgressFn progress_;
  Descriptor socket_;
  Json answer_;
  std::string file_;  // asked for last
};

}  // namespace

std::shared_ptr<ShardProvider> shard_provider(
    const std::string& name,
    const Json& fetched,
    const ProgressFn& progress) {
  std::error_code ignored;
  if (fs::is_directory(name, ignored)) {
    throw argument_error(
        kHub,
        "--stream is for a model of the hub; " + one_line(name, 200) +
            " is here already");
  }
  const auto socket = Json::json_pointer() / "model" / name / "socket";
  if (!fetched.contains(socket)) {
    return nullptr;
  }
  return std::make_shared<SocketProvider>(
      name, fetched.at(socket).get<std::string>(), progress);
}

}  // namespace pennyweight
