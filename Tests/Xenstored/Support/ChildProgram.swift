import Glibc

/// A program that runs beside the tests, with our ends of its standard input and of its standard output and errors.
@safe struct ChildProgram {
  let process: pid_t
  /// What is written here it reads; closed, its input ends.
  let input: CInt
  /// What it writes can be read here.
  let output: CInt

  /// Starts `arguments[0]`, which is looked for along `PATH`, with `environment` (`NAME=VALUE`) besides our own.
  init(_ arguments: [String], environment: [String] = []) throws(XenstoredError) {
    // Both ends are closed in every other program that is started.
    guard let (theirInput, input) = Self.pair(), let (output, theirOutput) = Self.pair() else {
      throw XenstoredError("cannot make a pair of sockets: \(Self.words(for: errno))")
    }
    defer {
      close(theirInput)
      close(theirOutput)
    }
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    for (from, to) in [(theirInput, STDIN_FILENO), (theirOutput, STDOUT_FILENO), (theirOutput, STDERR_FILENO)] {
      unsafe posix_spawn_file_actions_adddup2(&actions, from, to)
    }
    var process: pid_t = 0
    let failure = unsafe Self.withStrings(arguments) { arguments in
      unsafe Self.withStrings(environment + Self.ownEnvironment) { environment in
        // Safe: the strings live until the call is over.
        unsafe posix_spawnp(&process, arguments[0]!, &actions, nil, arguments, environment)
      }
    }
    guard failure == 0 else {
      close(input)
      close(output)
      throw XenstoredError("cannot start \(arguments[0]): \(Self.words(for: failure))")
    }
    (self.process, self.input, self.output) = (process, input, output)
  }

  /// What it writes, until `condition` holds for all that it has written, or it has ended.
  func read(until condition: (String) -> Bool = { _ in false }) -> String {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
      let text = String(decoding: bytes, as: UTF8.self)
      if condition(text) { return text }
      // Safe: the array has room for as many bytes.
      let count = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(output, $0.baseAddress, $0.count) }
      if count > 0 { bytes += chunk.prefix(count) } else if count == 0 || errno != EINTR { return text }
    }
  }

  /// Ends its input and waits until it has ended; gives its exit status, or 128 and the signal that ended it.
  func end() -> CInt {
    close(input)
    var status: CInt = 0
    while unsafe waitpid(process, &status, 0) < 0, errno == EINTR {}
    close(output)
    return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + status & 0x7f
  }

  private static func pair() -> (CInt, CInt)? {
    var ends: [CInt] = [-1, -1]
    let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    // Safe: the array has room for two.
    guard unsafe socketpair(AF_UNIX, type, 0, &ends) == 0 else { return nil }
    return (ends[0], ends[1])
  }

  private static let ownEnvironment: [String] = {
    var strings: [String] = []
    // Safe: nobody changes the environment of the tests, and a nil ends it.
    var next = unsafe environ
    while let string = unsafe next.pointee {
      unsafe strings.append(String(cString: string))
      unsafe next += 1
    }
    return strings
  }()

  @unsafe private static func withStrings<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
  ) -> Result {
    let copies = unsafe strings.map { unsafe strdup($0) } + [nil]
    defer { for index in strings.indices { unsafe free(copies[index]) } }
    return unsafe copies.withUnsafeBufferPointer { unsafe body($0.baseAddress!) }
  }

  static func words(for error: CInt) -> String {
    // Safe: the message is copied before any other call on this thread could change it.
    unsafe String(cString: strerror(error))
  }
}
