/// What two ends agreed on, feature by feature, and why a feature is off.
public struct Negotiation: Hashable, Sendable, CustomStringConvertible {
  public struct Line: Hashable, Sendable {
    /// The feature in its header's words: "feature-flush-cache", "ring pages".
    public let feature: String
    public let frontend: String
    public let backend: String
    public let agreed: String
    /// Why it is off, or less than one side offered; empty otherwise.
    public let reason: String
  }

  public private(set) var lines: [Line] = []

  public init() {}

  public mutating func add(_ feature: String, frontend: String, backend: String, agreed: String, reason: String = "") {
    lines.append(Line(feature: feature, frontend: frontend, backend: backend, agreed: agreed, reason: reason))
  }

  /// A feature that is on when both sides have it.
  public mutating func add(_ feature: String, frontend: Bool, backend: Bool) {
    let words = { $0 ? "yes" : "no" }
    let reason =
      switch (frontend, backend) {
      case (true, true): ""
      case (false, true): "the frontend does not use it"
      case (true, false): "the backend does not offer it"
      case (false, false): "neither side offers it"
      }
    add(
      feature, frontend: words(frontend), backend: words(backend), agreed: frontend && backend ? "on" : "off",
      reason: reason)
  }

  /// A table, one line a feature.
  public var description: String {
    let rows =
      [["feature", "frontend", "backend", "agreed", ""]]
      + lines.map { [$0.feature, $0.frontend, $0.backend, $0.agreed, $0.reason] }
    let widths = (0..<4).map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      let cells = zip(row, widths).map { cell, width in cell + String(repeating: " ", count: width - cell.count) }
      var line = (cells + (row[4].isEmpty ? [] : [row[4]])).joined(separator: "  ")
      while line.last == " " { line.removeLast() }
      return line
    }.joined(separator: "\n")
  }
}
