import Glibc

/// What this process has used.
public enum ProcessUse {
  /// Seconds of processor time, the kernel's included.
  public static var processorSeconds: Double {
    var usage = rusage()
    // Safe: it writes to a variable of ours.
    unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return [usage.ru_utime, usage.ru_stime].reduce(0) { $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6 }
  }

  public static var descriptorCount: Int { entryCount(of: "/proc/self/fd") }
  public static var threadCount: Int { entryCount(of: "/proc/self/task") }

  private static func entryCount(of path: String) -> Int {
    // Safe: the string is ours, and the directory is read by nobody else.
    guard let directory = unsafe opendir(path) else { return 0 }
    defer { unsafe closedir(directory) }
    var count = 0
    while unsafe readdir(directory) != nil { count += 1 }
    // Not the two dots.
    return count - 2
  }

  /// Resident memory.
  public static var residentKibibytes: Int {
    // Safe: the strings and the buffer are ours, and the call keeps to the buffer's length.
    guard let file = unsafe fopen("/proc/self/statm", "r") else { return 0 }
    defer { unsafe fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 128)
    let count = unsafe fread(&bytes, 1, bytes.count, file)
    // The second number is the resident pages'.
    let numbers = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ")
    return numbers.count > 1 ? (Int(numbers[1]) ?? 0) * 4 : 0
  }
}
