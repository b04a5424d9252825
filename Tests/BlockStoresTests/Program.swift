import Glibc
import SystemPackage
import Testing

@testable import BlockStores

/// A program that runs beside the tests; killed when nobody has it any more.
final class Program {
  let name: String
  private let process: pid_t
  private let output: FileDescriptor
  private var status: CInt?

  /// Starts `arguments[0]`, which is looked for along `PATH`.
  init(_ arguments: String...) throws { (name, process, output) = try Self.start(arguments) }

  init(_ arguments: [String]) throws { (name, process, output) = try Self.start(arguments) }

  private static func start(_ arguments: [String]) throws -> (String, pid_t, FileDescriptor) {
    // Both ends are closed in every other program that is started meanwhile: it would keep this one's output open.
    var ends: [CInt] = [-1, -1]
    let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    // Safe: the array has room for two.
    try #require(unsafe socketpair(AF_UNIX, type, 0, &ends) == 0)
    let (reading, writing) = (FileDescriptor(rawValue: ends[0]), FileDescriptor(rawValue: ends[1]))
    defer { try? writing.close() }
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    for to in [STDOUT_FILENO, STDERR_FILENO] {
      unsafe posix_spawn_file_actions_adddup2(&actions, writing.rawValue, to)
    }
    var words = unsafe arguments.map { unsafe strdup($0) } + [nil]
    defer { for index in unsafe words.indices { unsafe free(words[index]) } }
    var process: pid_t = 0
    // Safe: the strings live until the call is over.
    let failure = unsafe posix_spawnp(&process, words[0]!, &actions, nil, &words, environ)
    try #require(failure == 0, "cannot start \(arguments[0]): \(Errno(rawValue: failure))")
    return (arguments[0], process, reading)
  }

  deinit {
    if status == nil { end(by: SIGKILL) }
    try? output.close()
  }

  /// Sends it a signal, and nothing more.
  func send(_ signal: CInt) { kill(process, signal) }

  /// All of its threads have taken notice of a SIGSTOP (proc(5), `stat`).
  var isStopped: Bool {
    let folder = "/proc/\(process)/task"
    guard let directory = unsafe opendir(folder) else { return false }
    defer { unsafe closedir(directory) }
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) {
        unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      guard UInt(name) != nil, let stat = smallFile("\(folder)/\(name)/stat") else { continue }
      guard String(decoding: stat, as: UTF8.self).contains(") T ") else { return false }
    }
    return true
  }

  @discardableResult func end(by signal: CInt = SIGTERM) -> CInt {
    kill(process, signal)
    return wait()
  }

  /// Its exit status, once it has ended, or 128 and the signal that ended it.
  @discardableResult func wait() -> CInt {
    if let status { return status }
    var raw: CInt = 0
    while unsafe waitpid(process, &raw, 0) < 0, errno == EINTR {}
    let ended = raw & 0x7f == 0 ? raw >> 8 & 0xff : 128 + raw & 0x7f
    status = ended
    return ended
  }

  /// All that it writes.
  private func read() throws -> String {
    var (bytes, chunk) = ([UInt8](), [UInt8](repeating: 0, count: 4096))
    while true {
      let count = try unsafe chunk.withUnsafeMutableBytes { try unsafe output.read(into: $0) }
      if count == 0 { return String(decoding: bytes, as: UTF8.self) }
      bytes += chunk.prefix(count)
    }
  }

  /// Runs it to its end, which must be a success; what it wrote, without the last end of line.
  @discardableResult static func run(_ arguments: String...) throws -> String {
    let program = try Program(arguments)
    let text = try program.read()
    try #require(program.wait() == 0, "\(arguments.joined(separator: " ")): \(text)")
    return text.last == "\n" ? String(text.dropLast()) : text
  }

  static func isInstalled(_ name: String) -> Bool {
    let folders = (unsafe getenv("PATH").map { unsafe String(cString: $0) } ?? "").split(separator: ":")
    return folders.contains { unsafe access("\($0)/\(name)", X_OK) == 0 }
  }
}

/// Waits until `condition` holds, looking every few milliseconds.
func waits(seconds: Double = 300, until condition: () throws -> Bool) rethrows -> Bool {
  let deadline = Uptime.now.nanoseconds + UInt64(seconds * 1e9)
  while Uptime.now.nanoseconds < deadline {
    if try condition() { return true }
    usleep(5_000)
  }
  return try condition()
}
