/// The two names of a guest's disk: the number by which the two ends know it, and what a Linux guest calls it
/// (docs/man/xen-vbd-interface.7.pandoc).
public enum VirtualDisk {
  /// Disks and partitions up to these have a number below 2^16, as the major and minor of a Linux device.
  private static let (shortDiskCount, shortPartitionCount) = (16, 16)
  private static let major = 202
  private static let extended = 1 << 28
  /// Of the disks, and of the partitions of one, that an extended number has bits for.
  private static let (diskCount, partitionCount) = (1 << 20, 1 << 8)

  /// `xvda`, or `xvda1` for a partition; the plain number where it is no such disk.
  public static func name(of number: Int) -> String {
    let (disk, partition): (Int, Int)
    if number >> 8 == major {
      (disk, partition) = (number >> 4 & 0xF, number & 0xF)
    } else if number >> 28 == 1 {
      (disk, partition) = (number >> 8 & (diskCount - 1), number & (partitionCount - 1))
    } else {
      return "\(number)"
    }
    return "xvd" + letters(of: disk) + (partition == 0 ? "" : "\(partition)")
  }

  /// The number of `xvda`, `xvda1` and the like, or of a text that is one; nil for anything else.
  public static func number(of name: String) -> Int? {
    if let number = decimal(name) { return number > 0 && number < extended << 1 ? number : nil }
    guard name.hasPrefix("xvd") else { return nil }
    // Octets: a character of Swift's may be a letter with any number of accents.
    let rest = name.dropFirst(3).utf8
    let letters = rest.prefix { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) }
    let digits = name[letters.endIndex...]
    // Five letters name more disks than there are numbers.
    guard !letters.isEmpty, letters.count <= 5, let partition = digits.isEmpty ? 0 : decimal(digits),
      digits.first != "0", partition < partitionCount
    else { return nil }
    let disk = letters.reduce(0) { $0 * 26 + Int($1 - UInt8(ascii: "a")) + 1 } - 1
    guard disk < diskCount else { return nil }
    return disk < shortDiskCount && partition < shortPartitionCount
      ? major << 8 | disk << 4 | partition : extended | disk << 8 | partition
  }

  /// a to z, then aa, ab and so on.
  private static func letters(of disk: Int) -> String {
    var (rest, letters) = (disk, "")
    repeat {
      letters = String(UnicodeScalar(UInt8(ascii: "a") + UInt8(rest % 26))) + letters
      rest = rest / 26 - 1
    } while rest >= 0
    return letters
  }

  /// Digits and nothing else.
  private static func decimal(_ text: some StringProtocol) -> Int? {
    text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ? Int(text) : nil
  }
}
