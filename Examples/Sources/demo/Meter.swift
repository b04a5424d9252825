import ExampleSupport
import Foundation

/// Progress on one line of a terminal, or a line every quarter elsewhere.
struct Meter {
  private let verb: String
  private let total: Int
  private let isTerminal = isatty(STDOUT_FILENO) == 1
  private var shown = -1

  init(_ verb: String, total: Int) {
    self.verb = verb
    self.total = total
  }

  mutating func show(_ done: Int) {
    let percent = total == 0 ? 100 : done * 100 / total
    guard percent / (isTerminal ? 1 : 25) != shown / (isTerminal ? 1 : 25) || shown < 0 else { return }
    shown = percent
    FileHandle.standardOutput.write(Data("\(isTerminal ? "\r" : "")\(verb) \(percent) %\(isTerminal ? "" : "\n")".utf8))
  }

  func end() { if isTerminal { say("") } }
}
