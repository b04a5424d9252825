import Foundation

/// A failure that reads like a sentence.
public struct ExampleError: Error, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

/// A line on standard output, at once: progress is no use in a buffer.
public func say(_ line: String) { try? FileHandle.standardOutput.write(contentsOf: Data((line + "\n").utf8)) }

/// A line on standard error, at once.
public func complain(_ line: String) { try? FileHandle.standardError.write(contentsOf: Data((line + "\n").utf8)) }
